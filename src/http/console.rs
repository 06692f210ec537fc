//! GraphiQL: the page and its assets, built in `console/` and embedded.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error::EdgeError;

#[derive(rust_embed::RustEmbed)]
#[folder = "console/dist"]
struct Dist;

/// Everything comes from this server. The editor needs inline styles and starts its workers from blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     font-src 'self' data:; img-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is shown when only cargo has built the program.
const NOT_BUILT: &str = "<!doctype html><title>Runlane</title>\
    <p>The console is not built into this program: run <code>make console</code> and build again.</p>";

const PAGE_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Asked for again each time, so that a new program's page is seen at once; its assets have names that change.
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// The page; 304 if the browser has it already.
pub(super) fn page(headers: &HeaderMap) -> Response {
    let Some(file) = Dist::get("index.html") else {
        return (StatusCode::OK, PAGE_HEADERS, NOT_BUILT).into_response();
    };
    let etag = format!("W/\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| {
        known.to_str().is_ok_and(|known| known.split(',').any(|one| one.trim() == etag))
    });
    if known {
        return (StatusCode::NOT_MODIFIED, PAGE_HEADERS, [(ETAG, etag)]).into_response();
    }
    (StatusCode::OK, PAGE_HEADERS, [(ETAG, etag)], file.data).into_response()
}

/// One asset. Its name has a hash of its content, so it may be kept for ever.
pub(super) async fn asset(Path(path): Path<String>) -> Response {
    let name = format!("assets/{path}");
    let Some(file) = Dist::get(&name) else {
        return EdgeError::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such asset").into_response();
    };
    let headers = [
        (CONTENT_TYPE, file.metadata.mimetype().to_owned()),
        (CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
    ];
    (headers, file.data).into_response()
}
