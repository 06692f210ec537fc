//! What machines ask: is the process alive, is it well, may it take traffic, what are its figures.

use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Shared;
use super::error::EdgeError;

/// Where the probes get their answers.
pub trait Probes: Send + Sync + 'static {
    /// How the parts that the program depends on are, with figures. Nobody is asked for a token, so it must not repeat what
    /// the database says.
    fn health(&self) -> impl Future<Output = HealthReport> + Send;
    /// Whether this process may take traffic.
    fn ready(&self) -> impl Future<Output = Readiness> + Send;
}

/// How the parts are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The database.
    pub database: DatabaseHealth,
    /// The pools of connections to it.
    pub pools: Vec<PoolHealth>,
    /// What is wrong, for people; empty means healthy.
    pub problems: Vec<String>,
}

/// How the database is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseHealth {
    /// Whether it answered.
    pub reachable: bool,
    /// How long its answer took, in milliseconds; null without one.
    pub latency_ms: Option<f64>,
}

/// How one pool is; all in connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolHealth {
    /// `api` or `orchestrator`.
    pub name: String,
    /// Open now.
    pub size: u32,
    /// Open and unused.
    pub idle: u32,
    /// How many may be open.
    pub max: u32,
}

impl HealthReport {
    /// Whether anything is wrong.
    #[must_use]
    pub fn degraded(&self) -> bool {
        !self.database.reachable || !self.problems.is_empty()
    }
}

/// Whether traffic may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may.
    Ready,
    /// Not yet.
    Starting,
    /// No more: the process is stopping.
    Draining,
    /// Not now, for this reason.
    NotReady(String),
}

/// 200 as long as the process can answer at all.
pub(super) async fn live() -> Response {
    uncached(StatusCode::OK, json!({"status": "live"}))
}

pub(super) async fn health<E: Send + Sync, P: Probes>(State(shared): State<Arc<Shared<E, P>>>) -> Response {
    let report = shared.probes.health().await;
    let (status, word) = match report.degraded() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let HealthReport { database, pools, problems } = report;
    uncached(status, json!({"status": word, "database": database, "pools": pools, "problems": problems}))
}

pub(super) async fn ready<E: Send + Sync, P: Probes>(State(shared): State<Arc<Shared<E, P>>>) -> Response {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match shared.probes.ready().await {
        Readiness::Ready => uncached(StatusCode::OK, json!({"status": "ready"})),
        Readiness::Starting => uncached(unavailable, json!({"status": "starting"})),
        Readiness::Draining => uncached(unavailable, json!({"status": "draining"})),
        Readiness::NotReady(reason) => {
            uncached(unavailable, json!({"status": "not ready", "reason": reason}))
        }
    }
}

pub(super) async fn metrics<E: Send + Sync, P: Send + Sync>(
    State(shared): State<Arc<Shared<E, P>>>,
) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.metrics) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], text).into_response()
        }
        Err(error) => EdgeError::internal(&error).into_response(),
    }
}

fn uncached(status: StatusCode, body: serde_json::Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
