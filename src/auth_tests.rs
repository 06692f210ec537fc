use super::*;

const NOW: i64 = 1_790_000_000;

struct FixedClock(i64);
impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0, 0).unwrap()
    }
}

fn secret() -> SecretString {
    "an entirely secret sentence of more than 32 bytes".to_owned().into()
}

fn authority_at(now: i64) -> Authority {
    Authority::new(&secret(), "runlane", "runlane", Arc::new(FixedClock(now))).unwrap()
}

fn authority() -> Authority {
    authority_at(NOW)
}

fn good() -> Value {
    json!({"sub": "ada", "role": "user", "iat": NOW, "exp": NOW + 60, "iss": "runlane", "aud": "runlane"})
}

/// A token over good claims with one changed; `Value::Null` removes it.
fn with(name: &str, value: Value) -> String {
    let mut claims = good();
    let map = claims.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.into(), value)
    };
    sign(Algorithm::HS256, &claims, &secret())
}

fn sign(algorithm: Algorithm, claims: &Value, secret: &SecretString) -> String {
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

#[test]
fn an_issued_token_is_verified() {
    for &role in Role::ALL {
        let token = authority().issue("ada", role, Duration::from_secs(60)).unwrap();
        let verified = authority().verify_with_expiry(&token).unwrap();
        assert_eq!(
            verified.requester,
            Requester { subject: "ada".into(), role, group: None, request_id: String::new() }
        );
        assert_eq!(verified.expires_at.timestamp(), NOW + 60);
    }
}

#[test]
fn an_issued_token_has_the_agreed_header_and_claims() {
    let token = authority().issue("ada", Role::Admin, Duration::from_secs(3600)).unwrap();
    assert_eq!(jsonwebtoken::decode_header(&token).unwrap().alg, Algorithm::HS256);
    let claims: Value = jsonwebtoken::dangerous::insecure_decode(&token).unwrap().claims;
    let expected = json!({"sub": "ada", "role": "admin", "iat": NOW, "exp": NOW + 3600, "iss": "runlane", "aud": "runlane"});
    assert_eq!(claims, expected);
}

#[test]
fn a_token_ends_with_its_exp_and_the_leeway() {
    let token = with("exp", json!(NOW));
    assert!(authority_at(NOW + LEEWAY_SECONDS - 1).verify(&token).is_ok());
    assert_eq!(authority_at(NOW + LEEWAY_SECONDS).verify(&token), Err(AuthError::Expired));
}

#[test]
fn a_token_begins_with_its_nbf_and_the_leeway() {
    let token = with("nbf", json!(NOW + LEEWAY_SECONDS));
    assert!(authority().verify(&token).is_ok());
    assert_eq!(authority_at(NOW - 1).verify(&token), Err(AuthError::NotYetValid));
}

#[test]
fn an_iat_in_the_future_or_none_does_no_harm() {
    assert!(authority().verify(&with("iat", json!(NOW + 10_000))).is_ok());
    assert!(authority().verify(&with("iat", Value::Null)).is_ok());
}

#[test]
fn every_claim_is_checked() {
    let cases: Vec<(&str, Value, AuthError)> = vec![
        ("exp", Value::Null, AuthError::MissingClaim("exp")),
        ("exp", json!("tomorrow"), AuthError::ClaimType("exp")),
        ("exp", json!(NOW - 1000), AuthError::Expired),
        ("iss", Value::Null, AuthError::MissingClaim("iss")),
        ("iss", json!("somebody"), AuthError::Issuer),
        ("iss", json!(["runlane"]), AuthError::ClaimType("iss")),
        ("aud", Value::Null, AuthError::MissingClaim("aud")),
        ("aud", json!("another"), AuthError::Audience),
        ("aud", json!([]), AuthError::Audience),
        ("aud", json!(7), AuthError::ClaimType("aud")),
        ("sub", Value::Null, AuthError::MissingClaim("sub")),
        ("sub", json!(5), AuthError::ClaimType("sub")),
        ("sub", json!("  "), AuthError::Subject(SubjectProblem::Empty)),
        ("sub", json!("a\nb"), AuthError::Subject(SubjectProblem::Control)),
        ("sub", json!("x".repeat(201)), AuthError::Subject(SubjectProblem::TooLong)),
        ("role", Value::Null, AuthError::MissingClaim("role")),
        ("role", json!("root"), AuthError::Role),
        ("role", json!("Admin"), AuthError::Role),
        ("nbf", json!("soon"), AuthError::ClaimType("nbf")),
    ];
    for (name, value, expected) in cases {
        let token = with(name, value.clone());
        let error = authority().verify(&token).expect_err(name);
        assert_eq!(error, expected, "{name} = {value}");
        assert!(!error.to_string().contains(&token), "{error}");
    }
}

#[test]
fn several_audiences_may_include_this_one_and_a_long_subject_is_good() {
    assert!(authority().verify(&with("aud", json!(["other", "runlane"]))).is_ok());
    assert!(authority().verify(&with("sub", json!("é".repeat(200)))).is_ok());
    assert!(authority().verify(&with("exp", json!(NOW as f64 + 0.5))).is_ok());
}

#[test]
fn another_algorithm_is_refused_even_with_the_right_secret() {
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = sign(algorithm, &good(), &secret());
        assert_eq!(authority().verify(&token), Err(AuthError::Algorithm));
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    // {"alg":"none","typ":"JWT"}
    let token = with("sub", json!("ada"));
    let claims = token.split('.').nth(1).unwrap();
    for signature in ["", token.split('.').nth(2).unwrap()] {
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.{signature}");
        assert_eq!(authority().verify(&unsigned), Err(AuthError::Algorithm));
    }
}

#[test]
fn another_secret_and_changed_claims_are_refused() {
    let other: SecretString = "another secret that is also longer than 32 bytes".to_owned().into();
    let token = sign(Algorithm::HS256, &good(), &other);
    assert_eq!(authority().verify(&token), Err(AuthError::Signature));

    let user = with("role", json!("user"));
    let admin = sign(Algorithm::HS256, &json!({"role": "admin"}), &other);
    let parts: Vec<&str> = user.split('.').collect();
    let mixed = format!("{}.{}.{}", parts[0], admin.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(authority().verify(&mixed), Err(AuthError::Signature));
}

#[test]
fn what_is_no_token_is_malformed() {
    for text in ["", "x", "a.b", "a.b.c", "....", "ü.ü.ü"] {
        assert_eq!(authority().verify(text), Err(AuthError::Malformed), "{text:?}");
    }
}

#[test]
fn the_header_must_be_one_bearer_token() {
    let token = with("sub", json!("ada"));
    let verify = |header: &str| authority().verify_header(Some(header));
    assert_eq!(authority().verify_header(None), Err(AuthError::Missing));
    for bad in ["", "Bearer", "Bearer ", &token, "Basic YTpi", &format!("Token {token}")] {
        assert_eq!(verify(bad), Err(AuthError::NotBearer), "{bad:?}");
    }
    assert!(verify(&format!("Bearer {token}")).is_ok());
    assert!(verify(&format!("bearer  {token} ")).is_ok());
}

#[test]
fn a_weak_secret_is_refused_and_not_repeated() {
    let make = |text: &str| {
        let secret: SecretString = text.to_owned().into();
        Authority::new(&secret, "runlane", "runlane", Arc::new(FixedClock(NOW)))
    };
    let error = make(&"s".repeat(31)).unwrap_err().to_string();
    assert!(!error.contains("sss"), "{error}");
    assert!(make(&"s".repeat(32)).is_ok());
}

#[test]
fn what_verify_would_refuse_is_not_issued() {
    let issue = |subject: &str, ttl| authority().issue(subject, Role::User, ttl);
    let minute = Duration::from_secs(60);
    assert_eq!(issue("", minute), Err(IssueError::Subject(SubjectProblem::Empty)));
    assert_eq!(issue("a\tb", minute), Err(IssueError::Subject(SubjectProblem::Control)));
    assert_eq!(issue(&"x".repeat(201), minute), Err(IssueError::Subject(SubjectProblem::TooLong)));
    assert_eq!(issue("ada", Duration::from_millis(999)), Err(IssueError::TimeToLive));
    assert_eq!(issue("ada", Duration::MAX), Err(IssueError::TimeToLive));
}

#[test]
fn the_secret_is_not_in_the_debug_text() {
    let debug = format!("{:?}", authority());
    assert!(!debug.contains("secret") && debug.contains("runlane"), "{debug}");
}

#[test]
fn a_group_is_carried_where_there_is_one() {
    let with = |group| authority().issue_in("ada", Role::User, group, Duration::from_secs(60));
    assert_eq!(authority().verify(&with(Some("blue")).unwrap()).unwrap().group.as_deref(), Some("blue"));
    assert_eq!(authority().verify(&with(None).unwrap()).unwrap().group, None);
    assert_eq!(with(Some(" ")), Err(IssueError::Group(SubjectProblem::Empty)));
}
