//! The HTTP edge: GraphQL over HTTP, GraphiQL, probes and metrics.
//!
//! Nothing here knows the schema: [`router`] takes any [`Executor`]. A request passes, from the outside in,
//! `observe` (request id, access log), CORS, compression, `contain` (time limit, panics), and then its handler. Every error is GraphQL-shaped and has an `extensions.code`.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::Executor;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{any, get};
use prometheus_client::registry::Registry;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use crate::auth::Authority;
use crate::config::Config;
use crate::domain::export::PARQUET;

mod answer;
mod completion;
mod console;
mod contain;
mod cors;
mod documents;
pub mod error;
mod export;
mod graphql;
mod negotiate;
mod observe;
mod params;
mod probes;
mod serve;

pub use completion::Completed;
pub use error::internal_error;
pub use export::Exports;
pub use probes::{DatabaseHealth, HealthReport, PoolHealth, Probes, Readiness};
pub use serve::{ShutdownOutcome, serve};

/// The settings of the HTTP edge.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Origins of other front-ends that browsers may call from; none: no CORS headers at all.
    pub cors_origins: Vec<String>,
    /// How long browsers may remember the answer to a preflight.
    pub cors_max_age: Duration,
    /// The largest request body in bytes.
    pub body_max_bytes: usize,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// What a client is told to wait when nothing better is known.
    pub retry_after: Duration,
    /// How many documents are kept parsed.
    pub documents_kept: usize,
}

impl HttpOptions {
    /// The part of the configuration that concerns HTTP.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            cors_origins: config.cors_origins.clone(),
            cors_max_age: Duration::from_secs(config.numbers.cors_max_age_seconds),
            body_max_bytes: config.numbers.http_body_max_bytes,
            request_timeout: Duration::from_millis(config.numbers.http_request_timeout_ms),
            retry_after: Duration::from_millis(config.numbers.http_retry_after_ms),
            documents_kept: config.numbers.graphql_documents_kept,
        }
    }
}

/// What the handlers share.
pub(crate) struct Shared<E, P> {
    pub(crate) executor: E,
    documents: documents::Documents,
    pub(crate) authority: Arc<Authority>,
    pub(crate) probes: P,
    pub(crate) metrics: Arc<Registry>,
    pub(crate) options: HttpOptions,
}

/// The program's whole HTTP surface.
///
/// `/graphql` (POST; GET for queries and, in a browser, GraphiQL), `/assets/*`, `/live`, `/health`, `/ready`, `/metrics`, and the routes of `more`.
pub fn router<E: Executor, P: Probes>(
    executor: E,
    authority: Arc<Authority>,
    probes: P,
    metrics: Arc<Registry>,
    options: HttpOptions,
    more: Router,
) -> Router {
    let cors = cors::layer(&options);
    let limits = contain::Limits { timeout: options.request_timeout, retry_after: options.retry_after };
    let documents = documents::Documents::new(options.documents_kept);
    let shared = Arc::new(Shared { executor, documents, authority, probes, metrics, options });
    let app = Router::new()
        .route("/graphql", any(graphql::handle::<E, P>))
        .route("/assets/{*path}", get(console::asset))
        .route("/live", get(probes::live))
        .route("/health", get(probes::health::<E, P>))
        .route("/ready", get(probes::ready::<E, P>))
        .route("/metrics", get(probes::metrics::<E, P>))
        .fallback(async || {
            error::EdgeError::new(StatusCode::NOT_FOUND, "NOT_FOUND", "nothing is served under this path")
        })
        .method_not_allowed_fallback(async || {
            error::EdgeError::validation(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET and HEAD only")
        })
        .with_state(shared)
        .merge(more)
        .layer(middleware::from_fn_with_state(limits, contain::contain))
        // Parquet is compressed.
        .layer(
            CompressionLayer::new()
                .compress_when(DefaultPredicate::new().and(NotForContentType::const_new(PARQUET))),
        );
    let app = match cors {
        Some(cors) => app.layer(cors),
        None => app,
    };
    app.layer(middleware::from_fn(observe::observe))
}
