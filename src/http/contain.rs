//! Keeps one request from harming the rest: a time limit, and panics made answers.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::error::EdgeError;
use super::negotiate::{MediaType, Wanted, wanted};

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) retry_after: Duration,
}

/// Answers 503 UNAVAILABLE when the time is up (the handler is dropped), and 500 INTERNAL after a panic.
pub(super) async fn contain(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let media_type = match wanted(request.headers()) {
        Wanted::Response(media_type) => media_type,
        Wanted::Page | Wanted::Nothing => MediaType::Json,
    };
    let guarded = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limits.timeout, guarded).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => EdgeError::internal(&format_args!("panic: {}", panic_text(panic.as_ref())))
            .with_media_type(media_type)
            .into_response(),
        Err(_elapsed) => {
            tracing::warn!(
                limit_ms = limits.timeout.as_millis() as u64,
                "a request was given up: it took too long"
            );
            let message = format!(
                "the request took longer than {} ms and was given up; what it was to change may still have happened",
                limits.timeout.as_millis()
            );
            EdgeError::unavailable(message, limits.retry_after).with_media_type(media_type).into_response()
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(without text)")
}
