//! Runs jobs: claims them, has the executor run them, and puts their ends on record.
//!
//! A process is one node at a time: a session with an id and a lease. A session whose lease was lost stops
//! its workers and is followed by a new one, under a new id, so that nothing of the old one can be taken for its own.

mod archive;
mod claiming;
mod inflight;
mod leader;
mod lease;
mod listening;
mod maintenance;
mod metrics;
mod request;
mod running;
mod session;
mod slots;
mod staleness;
mod verdict;
mod writing;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;

use crate::config::Config;
use crate::executor::Executor;
use crate::store::Store;
use session::{Ended, Session};

/// What the orchestrator works with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration of the process.
    pub config: Arc<Config>,
    /// For claims, completions and payloads.
    pub store: Store,
    /// For leases: connections of their own, so that a busy pool never costs a lease.
    pub lease_store: Store,
    /// Runs the Python processes.
    pub executor: Arc<Executor>,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the database lets this process claim nothing, as of the last renewal of its lease.
    pub is_draining: Arc<AtomicBool>,
}

/// Runs sessions until `shutdown` is cancelled and everything is given back or finished.
///
/// `ready` is notified when the first session is registered. With `now` cancelled, running jobs are given back at once.
pub async fn run(
    parts: Arc<Parts>,
    shutdown: CancellationToken,
    now: CancellationToken,
    ready: Arc<tokio::sync::Notify>,
) {
    loop {
        let begun = tokio::select! {
            begun = Session::begin(&parts) => begun,
            () = shutdown.cancelled() => return,
        };
        let session = match begun {
            Ok(session) => Arc::new(session),
            Err(error) => {
                tracing::warn!(%error, "cannot register this node; trying again");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(parts.config.numbers.lease_renewal_ms)) => continue,
                }
            }
        };
        ready.notify_one();
        match session.run(&shutdown, &now).await {
            Ended::Shutdown => return,
            Ended::LeaseLost => {
                tracing::warn!(node = %session.node, "this node's lease was lost; it registers anew")
            }
        }
    }
}
