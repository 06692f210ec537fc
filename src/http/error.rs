//! Errors that are made at the edge itself, and the one way in which internal errors become public.

use std::fmt::Display;
use std::time::Duration;

use async_graphql::{ErrorExtensionValues, ServerError};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::negotiate::MediaType;
use crate::auth::AuthError;
use crate::domain::ids;

/// The request cannot be used as it is.
pub const VALIDATION_ERROR: &str = "VALIDATION_ERROR";
/// No valid token.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// Too many requests; has `retryAfterMs`.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// Cannot be answered now; has `retryAfterMs`.
pub const UNAVAILABLE: &str = "UNAVAILABLE";
/// A mistake of the program; has `errorId`.
pub const INTERNAL: &str = "INTERNAL";

/// Logs `internal` under a new id and makes the error that clients see: the id, and nothing of the text.
#[must_use]
pub fn internal_error(internal: &dyn Display) -> ServerError {
    let error_id = ids::new_id().to_string();
    tracing::error!(error_id, error = %internal, "internal error");
    let mut error = ServerError::new(format!("an internal error happened; its id is {error_id}"), None);
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", INTERNAL);
    extensions.set("errorId", error_id);
    error.extensions = Some(extensions);
    error
}

/// A duration in whole seconds for `Retry-After`: rounded up and never 0.
#[must_use]
pub(crate) fn retry_after_seconds(wait: Duration) -> HeaderValue {
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    HeaderValue::from(seconds.max(1))
}

/// An answer in place of a GraphQL response: the request was never executed, or its execution was given up.
#[derive(Debug)]
pub(crate) struct EdgeError {
    pub(crate) status: StatusCode,
    error: Box<ServerError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    media_type: MediaType,
}

impl EdgeError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut error = ServerError::new(message, None);
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", code);
        error.extensions = Some(extensions);
        Self { status, error: Box::new(error), headers: Vec::new(), media_type: MediaType::Json }
    }

    pub(crate) fn validation(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, VALIDATION_ERROR, message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::validation(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn method_not_allowed(allow: &'static str, message: &'static str) -> Self {
        Self::validation(StatusCode::METHOD_NOT_ALLOWED, message)
            .header(ALLOW, HeaderValue::from_static(allow))
    }

    /// 401 with the challenge of RFC 6750.
    pub(crate) fn unauthenticated(error: &AuthError) -> Self {
        let challenge = match error {
            AuthError::Missing => HeaderValue::from_static("Bearer realm=\"runlane\""),
            AuthError::NotBearer => {
                HeaderValue::from_static("Bearer realm=\"runlane\", error=\"invalid_request\"")
            }
            _ => HeaderValue::from_static("Bearer realm=\"runlane\", error=\"invalid_token\""),
        };
        Self::new(StatusCode::UNAUTHORIZED, UNAUTHENTICATED, error.to_string())
            .header(WWW_AUTHENTICATE, challenge)
    }

    /// 503, and when to come again.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .header(RETRY_AFTER, retry_after_seconds(retry_after));
        let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        error.error.extensions.get_or_insert_default().set("retryAfterMs", ms);
        error
    }

    /// 500 with the id under which `internal` is in the log.
    pub(crate) fn internal(internal: &dyn Display) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: Box::new(internal_error(internal)),
            headers: Vec::new(),
            media_type: MediaType::Json,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with_media_type(mut self, media_type: MediaType) -> Self {
        self.media_type = media_type;
        self
    }
}

impl IntoResponse for EdgeError {
    fn into_response(self) -> Response {
        let body = json!({"errors": [self.error]}).to_string();
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, self.media_type.header());
        response.headers_mut().extend(self.headers);
        response
    }
}
