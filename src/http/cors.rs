//! Which other origins browsers may call from.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::HttpOptions;
use super::observe::X_REQUEST_ID;

/// The allow-list, or nothing when it is empty. Credentials are never allowed: tokens travel in a header of their own.
pub(super) fn layer(options: &HttpOptions) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = options.cors_origins.iter().filter_map(|o| o.parse().ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let batch_id = HeaderName::from_static("x-batch-id");
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::HEAD])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE, X_REQUEST_ID])
            .expose_headers([X_REQUEST_ID, batch_id, RETRY_AFTER])
            .max_age(options.cors_max_age),
    )
}
