//! Who asks: verifies and issues the tokens (JWT, HS256) that every request carries.
//!
//! A token has the claims `sub role iat exp iss aud`, and may have `group`. `exp`, `iss`, `aud`, `sub` and `role` are required and checked,
//! `nbf` is honoured when present, and `iat` is not judged: a clock that is ahead at the issuer does no harm. Time comes
//! from a [`Clock`], never from the library's own.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use crate::config::JWT_SECRET_MIN_BYTES;
use crate::domain::clock::Clock;
use crate::domain::{Requester, Role};

/// How far the clocks of issuer and server may differ, in seconds: a token is still good this long after its `exp` and
/// already good this long before its `nbf`.
pub const LEEWAY_SECONDS: i64 = 30;

/// The most characters of a `sub`.
pub const SUBJECT_MAX_CHARS: usize = 200;

/// Why a request is not let in. The messages are for people and never repeat the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization` header.
    #[error("a token is missing: send the header `Authorization: Bearer <token>`")]
    Missing,
    /// The `Authorization` header is not of the form `Bearer <token>`, or there are several.
    #[error("the Authorization header cannot be used: send one, of the form `Bearer <token>`")]
    NotBearer,
    /// The token is no JWT at all.
    #[error("the token is malformed: give the whole of what `runlane token` printed")]
    Malformed,
    /// The token names another algorithm than HS256.
    #[error("the token is signed with another algorithm than HS256")]
    Algorithm,
    /// The signature does not match: another secret, or somebody changed the token.
    #[error("the token's signature does not match: it was made with another secret, or was changed")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired: get a new one")]
    Expired,
    /// `nbf` has not come yet.
    #[error("the token is not valid yet: its `nbf` lies in the future")]
    NotYetValid,
    /// `iss` is not the configured one.
    #[error("the token comes from another issuer: its `iss` is not the one expected here")]
    Issuer,
    /// `aud` does not contain the configured one.
    #[error("the token is for another audience: its `aud` is not the one expected here")]
    Audience,
    /// `role` is none that exists.
    #[error("the token's `role` is unknown: it must be viewer, user or admin")]
    Role,
    /// `sub` cannot be used.
    #[error("the token's `sub` {0}")]
    Subject(SubjectProblem),
    /// `group` cannot be used.
    #[error("the token's `group` {0}")]
    Group(SubjectProblem),
    /// A claim that is required is missing.
    #[error("the token has no `{0}`")]
    MissingClaim(&'static str),
    /// A claim has the wrong type.
    #[error("the token's `{0}` has the wrong type")]
    ClaimType(&'static str),
}

/// What is wrong with a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectProblem {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// More than [`SUBJECT_MAX_CHARS`].
    #[error("is longer than {SUBJECT_MAX_CHARS} characters")]
    TooLong,
    /// Characters that would garble a log line or a terminal.
    #[error("contains control characters")]
    Control,
}

/// The secret is too short to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the JWT secret is too short: give at least {JWT_SECRET_MIN_BYTES} bytes, for example from `openssl rand -hex 32`"
)]
pub struct WeakSecret;

/// Why no token can be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The subject cannot be used.
    #[error("the subject {0}")]
    Subject(SubjectProblem),
    /// The group cannot be used.
    #[error("the group {0}")]
    Group(SubjectProblem),
    /// The time to live is below a second, or ends after the calendar.
    #[error("the time to live cannot be used: give at least one second and at most a century")]
    TimeToLive,
    /// The signature could not be made.
    #[error("the token could not be signed: {0}")]
    Signing(String),
}

/// A requester, and until when its token is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who asks.
    pub requester: Requester,
    /// The token's `exp`, without leeway: whatever outlives a request (a stream) ends then.
    pub expires_at: DateTime<Utc>,
}

/// Verifies and issues tokens with one secret.
pub struct Authority {
    encoding: EncodingKey,
    decoding: DecodingKey,
    issuer: String,
    audience: String,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority over `secret` for tokens with this `iss` and `aud`.
    ///
    /// # Errors
    /// [`WeakSecret`] below [`JWT_SECRET_MIN_BYTES`].
    pub fn new(
        secret: &SecretString,
        issuer: impl Into<String>,
        audience: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WeakSecret> {
        let bytes = secret.expose_secret().as_bytes();
        if bytes.len() < JWT_SECRET_MIN_BYTES {
            return Err(WeakSecret);
        }
        Ok(Self {
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            issuer: issuer.into(),
            audience: audience.into(),
            clock,
        })
    }

    /// Who holds `token`.
    ///
    /// # Errors
    /// [`AuthError`] with the first thing that is wrong.
    pub fn verify(&self, token: &str) -> Result<Requester, AuthError> {
        self.verify_with_expiry(token).map(|verified| verified.requester)
    }

    /// Who holds `token`, and until when it is good.
    ///
    /// # Errors
    /// As for [`Authority::verify`].
    pub fn verify_with_expiry(&self, token: &str) -> Result<Verified, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would compare with the machine's clock and name no claim; all claims are judged below.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &self.decoding, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => AuthError::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => AuthError::Algorithm,
                _ if names_other_algorithm(token) => AuthError::Algorithm,
                _ => AuthError::Malformed,
            })?
            .claims;
        self.judge(&claims)
    }

    /// Who sends a request with this `Authorization` header.
    ///
    /// # Errors
    /// [`AuthError::Missing`], [`AuthError::NotBearer`], or as for [`Authority::verify`].
    pub fn verify_header(&self, authorization: Option<&str>) -> Result<Requester, AuthError> {
        let (scheme, token) =
            authorization.ok_or(AuthError::Missing)?.trim().split_once(' ').ok_or(AuthError::NotBearer)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(AuthError::NotBearer);
        }
        self.verify(token.trim())
    }

    /// A token for `subject` with `role`, good from now for `ttl`.
    ///
    /// # Errors
    /// [`IssueError`] when the subject or the time to live cannot be used.
    pub fn issue(&self, subject: &str, role: Role, ttl: Duration) -> Result<String, IssueError> {
        self.issue_in(subject, role, None, ttl)
    }

    /// As [`Authority::issue`], for somebody whose runs spend the money of `group` as well.
    ///
    /// # Errors
    /// As for [`Authority::issue`], and when the group cannot be used.
    pub fn issue_in(
        &self,
        subject: &str,
        role: Role,
        group: Option<&str>,
        ttl: Duration,
    ) -> Result<String, IssueError> {
        check_subject(subject).map_err(IssueError::Subject)?;
        group.map_or(Ok(()), check_subject).map_err(IssueError::Group)?;
        let now = self.clock.now().timestamp();
        if ttl.as_secs() < 1 || ttl > TTL_MAX {
            return Err(IssueError::TimeToLive);
        }
        let expires = now + i64::try_from(ttl.as_secs()).map_err(|_| IssueError::TimeToLive)?;
        let mut claims = json!({
            "sub": subject,
            "role": role.as_str(),
            "iat": now,
            "exp": expires,
            "iss": self.issuer,
            "aud": self.audience,
        });
        if let Some(group) = group {
            claims["group"] = group.into();
        }
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| IssueError::Signing(error.to_string()))
    }

    fn judge(&self, claims: &Map<String, Value>) -> Result<Verified, AuthError> {
        let now = self.clock.now().timestamp();
        let expires = seconds(claims, "exp")?.ok_or(AuthError::MissingClaim("exp"))?;
        if now >= expires.saturating_add(LEEWAY_SECONDS) {
            return Err(AuthError::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|start| now.saturating_add(LEEWAY_SECONDS) < start) {
            return Err(AuthError::NotYetValid);
        }
        if text(claims, "iss")? != self.issuer {
            return Err(AuthError::Issuer);
        }
        let for_us = match claims.get("aud").ok_or(AuthError::MissingClaim("aud"))? {
            Value::String(one) => *one == self.audience,
            Value::Array(many) => many.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => return Err(AuthError::ClaimType("aud")),
        };
        if !for_us {
            return Err(AuthError::Audience);
        }
        let subject = text(claims, "sub")?;
        check_subject(subject).map_err(AuthError::Subject)?;
        let role = text(claims, "role")?.parse().map_err(|_| AuthError::Role)?;
        let group =
            claims.get("group").filter(|g| !g.is_null()).map(|_| text(claims, "group")).transpose()?;
        group.map_or(Ok(()), check_subject).map_err(AuthError::Group)?;
        let expires_at = DateTime::from_timestamp(expires, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok(Verified {
            requester: Requester {
                subject: subject.to_owned(),
                role,
                group: group.map(str::to_owned),
                request_id: String::new(),
            },
            expires_at,
        })
    }
}

/// The longest time to live: a century.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Whether the header of `token` can be read and names an algorithm that the library does not even know (`none`).
fn names_other_algorithm(token: &str) -> bool {
    use jsonwebtoken::{decode_header, errors};
    match decode_header(token) {
        Ok(header) => header.alg != Algorithm::HS256,
        Err(error) => match error.kind() {
            errors::ErrorKind::Json(json) => json.to_string().starts_with("unknown variant"),
            _ => false,
        },
    }
}

fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, AuthError> {
    claims.get(name).ok_or(AuthError::MissingClaim(name))?.as_str().ok_or(AuthError::ClaimType(name))
}

/// A claim that is a NumericDate: whole seconds, fractions cut off.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(n)) => {
            Ok(Some(n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).ok_or(AuthError::ClaimType(name))?))
        }
        Some(_) => Err(AuthError::ClaimType(name)),
    }
}

fn check_subject(subject: &str) -> Result<(), SubjectProblem> {
    if subject.trim().is_empty() {
        Err(SubjectProblem::Empty)
    } else if subject.chars().count() > SUBJECT_MAX_CHARS {
        Err(SubjectProblem::TooLong)
    } else if subject.chars().any(char::is_control) {
        Err(SubjectProblem::Control)
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
