//! From a GraphQL response to an HTTP one: status, headers, body.

use std::collections::BTreeMap;
use std::time::Duration;

use async_graphql::{Response as GraphqlResponse, ServerError, Value};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::{
    EdgeError, INTERNAL, RATE_LIMITED, UNAUTHENTICATED, UNAVAILABLE, VALIDATION_ERROR, internal_error,
    retry_after_seconds,
};
use super::negotiate::MediaType;

#[derive(Serialize)]
struct Body<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'r Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'r [ServerError],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: &'r BTreeMap<String, Value>,
}

/// The answer to a document that is refused with one message before it reaches the executor.
pub(super) fn request_error(message: impl Into<String>, media_type: MediaType) -> Response {
    request_errors(vec![ServerError::new(message, None)], media_type)
}

/// The answer to a document that is refused before it reaches the executor.
pub(super) fn request_errors(errors: Vec<ServerError>, media_type: MediaType) -> Response {
    answer(GraphqlResponse::from_errors(errors), media_type, Duration::ZERO)
}

/// The answer to an executed request.
///
/// Three codes decide the status whichever the media type, because proxies and clients act on it: `UNAUTHENTICATED` 401,
/// `RATE_LIMITED` 429, `UNAVAILABLE` 503; but only if no root field has a value, since an answer that carries data is a
/// success in part. Everything else is as GraphQL over HTTP has it: an error before execution is 400 in
/// `application/graphql-response+json` and 200 in `application/json`, an error of a field is 200.
pub(super) fn answer(
    mut response: GraphqlResponse,
    media_type: MediaType,
    retry_after: Duration,
) -> Response {
    // Errors of fields have a path; those of parsing, validation and the choice of the operation have none.
    let never_executed = response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|e| e.path.is_empty());
    for error in &mut response.errors {
        give_code(error, never_executed);
    }
    let retry_after = asked_to_wait(&response.errors, retry_after);
    let decided = if has_value(&response.data) { None } else { decided_by_code(&response.errors) };
    let status = decided.unwrap_or_else(|| match (never_executed, media_type) {
        (true, _) if response.errors.iter().any(|e| code(e) == Some(INTERNAL)) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        (true, MediaType::GraphqlResponse) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    });
    let body = Body {
        data: (!never_executed).then_some(&response.data),
        errors: &response.errors,
        extensions: &response.extensions,
    };
    let body = match serde_json::to_vec(&body) {
        Ok(body) => body,
        Err(error) => return EdgeError::internal(&error).with_media_type(media_type).into_response(),
    };
    let mut answer = (status, body).into_response();
    let headers = answer.headers_mut();
    headers.extend(response.http_headers);
    // What frames the body is not for resolvers to say.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, media_type.header());
    if let Some(wait) = retry_after {
        headers.insert(RETRY_AFTER, retry_after_seconds(wait));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"runlane\""));
    }
    answer
}

fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        _ => None,
    }
}

/// Gives an error without a code the one it must have. What the executor refuses before execution and values that do not
/// fit their type are the client's; any other error without a code was not meant for clients.
fn give_code(error: &mut ServerError, never_executed: bool) {
    if code(error).is_some() {
        return;
    }
    let misfit =
        ["Failed to parse \"", "Expected input type \""].iter().any(|p| error.message.starts_with(p));
    if never_executed || misfit {
        error.extensions.get_or_insert_default().set("code", VALIDATION_ERROR);
    } else {
        let public = internal_error(&error.message);
        error.message = public.message;
        error.extensions = public.extensions;
    }
}

fn decided_by_code(errors: &[ServerError]) -> Option<StatusCode> {
    let by_code = [
        (UNAUTHENTICATED, StatusCode::UNAUTHORIZED),
        (RATE_LIMITED, StatusCode::TOO_MANY_REQUESTS),
        (UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
    ];
    by_code.iter().find(|(c, _)| errors.iter().any(|e| code(e) == Some(c))).map(|(_, status)| *status)
}

/// The longest wait that an error asks for; one that asks without a number gets the usual.
fn asked_to_wait(errors: &[ServerError], usual: Duration) -> Option<Duration> {
    let wait = |error: &ServerError| match error.extensions.as_ref()?.get("retryAfterMs") {
        Some(Value::Number(ms)) => ms.as_u64().map(Duration::from_millis),
        _ => None,
    };
    errors
        .iter()
        .filter(|e| matches!(code(e), Some(RATE_LIMITED | UNAVAILABLE)))
        .map(|e| wait(e).unwrap_or(usual))
        .max()
}

/// Whether any root field has a value.
fn has_value(data: &Value) -> bool {
    match data {
        Value::Object(fields) => fields.values().any(|v| *v != Value::Null),
        other => *other != Value::Null,
    }
}
