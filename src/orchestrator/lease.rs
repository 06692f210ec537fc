//! The node's sign of life, and the rescue of jobs whose node gives none.

use std::sync::Arc;
use std::time::Duration;

use super::session::{Session, lease_term};
use crate::store::Lease;

/// Renews the lease until the session is over; finds out when it is lost. Rescues the jobs of other nodes.
pub async fn keep(session: Arc<Session>) {
    let store = &session.parts.lease_store;
    let term = lease_term(&session.parts);
    let mut every =
        tokio::time::interval(Duration::from_millis(session.parts.config.numbers.lease_renewal_ms));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = session.over.cancelled() => return,
        }
        match store.renew_lease(session.node, term).await {
            Ok(Lease::Renewed) => {}
            Ok(Lease::Lost) => {
                session.lost.cancel();
                return;
            }
            Err(error) => {
                session.parts.metrics.renewal_failed();
                tracing::warn!(%error, node_id = %session.node, "cannot renew the lease; trying again");
                continue;
            }
        }
        // A cancel whose notification was lost is found here.
        if session.inflight.len() > 0 {
            session.cancels.notify_one();
        }
        match store.rescue_jobs(term).await {
            Ok(rescued) => rescued.into_iter().for_each(|(node, job)| {
                tracing::warn!(node_id = %node, job_id = job, "a dead node's job goes back to the queue");
            }),
            Err(error) => tracing::warn!(%error, node_id = %session.node, "cannot look for dead nodes"),
        }
    }
}
