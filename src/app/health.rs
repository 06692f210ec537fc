//! What `/health` and `/ready` say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::http::{DatabaseHealth, HealthReport, PoolHealth, Probes, Readiness};
use crate::store::Store;

/// A database that takes longer to answer is not well.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The parts that the probes look at.
#[derive(Debug)]
pub struct AppProbes {
    pub(super) api: Store,
    pub(super) orchestrator: Store,
    pub(super) api_max: u32,
    pub(super) orchestrator_max: u32,
    pub(super) shutdown: CancellationToken,
    /// An admin drained the node of this process.
    pub(super) is_draining: Arc<AtomicBool>,
}

impl AppProbes {
    /// How long the database took to answer; `None` when it did not.
    async fn latency(&self) -> Option<Duration> {
        let began = Instant::now();
        match tokio::time::timeout(ANSWER_MAX, self.api.ping()).await {
            Ok(Ok(())) => Some(began.elapsed()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database does not answer");
                None
            }
            Err(_) => None,
        }
    }
}

fn pool(name: &str, store: &Store, max: u32) -> PoolHealth {
    let pool = store.pool();
    let idle = u32::try_from(store.idle_connections()).unwrap_or(u32::MAX);
    PoolHealth { name: name.to_owned(), size: pool.size(), idle: idle.min(pool.size()), max }
}

impl Probes for AppProbes {
    async fn health(&self) -> HealthReport {
        let latency = self.latency().await;
        let mut problems = Vec::new();
        if latency.is_none() {
            problems.push("the database does not answer".to_owned());
        }
        HealthReport {
            database: DatabaseHealth {
                reachable: latency.is_some(),
                latency_ms: latency.map(|l| l.as_secs_f64() * 1_000.0),
            },
            pools: vec![
                pool("api", &self.api, self.api_max),
                pool("orchestrator", &self.orchestrator, self.orchestrator_max),
            ],
            problems,
        }
    }

    async fn ready(&self) -> Readiness {
        if self.shutdown.is_cancelled() || self.is_draining.load(Ordering::Relaxed) {
            return Readiness::Draining;
        }
        match self.latency().await {
            Some(_) => Readiness::Ready,
            None => Readiness::NotReady("the database does not answer".to_owned()),
        }
    }
}
