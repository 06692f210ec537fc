//! Names every request, and writes one access log line for each.

use std::time::Instant;

use axum::extract::Request;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::domain::{RequestId, ids};

/// Names one request, on the way in and on the way out.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken from a client, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// Takes the client's request id if it is sane, else makes one; it is in the span of all that happens for the request, in
/// the request's extensions, and on the response. The access line has no query string, header or body: they hold secrets.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let (request_id, header) = request_id(request.headers().get(X_REQUEST_ID));
    let span = tracing::info_span!("request", request_id = %request_id);
    request.extensions_mut().insert(RequestId(request_id));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let began = Instant::now();
    async move {
        let mut response = next.run(request).await;
        response.headers_mut().insert(X_REQUEST_ID, header);
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let duration_ms = began.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(target: "runlane::access", %method, path, status = response.status().as_u16(), duration_ms);
        response
    }
    .instrument(span)
    .await
}

fn request_id(given: Option<&HeaderValue>) -> (String, HeaderValue) {
    if let Some(value) = given
        && (1..=REQUEST_ID_MAX).contains(&value.len())
        && let Ok(text) = value.to_str()
        && text.bytes().all(|b| b.is_ascii_graphic())
    {
        return (text.to_owned(), value.clone());
    }
    let made = ids::new_id().to_string();
    let header = HeaderValue::from_str(&made).expect("a UUID is visible ASCII");
    (made, header)
}
