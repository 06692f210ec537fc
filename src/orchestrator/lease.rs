//! The node's sign of life, and the rescue of jobs whose node gives none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::session::{Session, lease_term};
use crate::store::{Lease, Result};

/// The part of a lease that is left for the end of the workers when it cannot be renewed.
const RESERVE: u32 = 6;

/// Renews the lease until the session is over; gives the session up when the lease is lost or about to run out.
pub async fn keep(session: Arc<Session>) {
    let term = lease_term(&session.parts);
    // A connection that has gone silent leaves time for another try.
    let patience = Duration::from_millis(session.parts.config.numbers.lease_renewal_ms);
    let store = session.parts.lease_store.answered_within(patience);
    let usable = term - term / RESERVE;
    // Counted from before the database was asked, so never longer than the database counts.
    let mut good_until = session.began + usable;
    let mut every = renewals(&session);
    loop {
        let asked_at = tokio::select! {
            _ = every.tick() => Instant::now(),
            () = session.over.cancelled() => return,
        };
        let answer = tokio::select! {
            answer = store.renew_lease(session.node, term) => Some(answer),
            () = sleep_until(good_until) => None,
        };
        match answer {
            Some(Ok(Lease::Renewed)) => {
                good_until = asked_at + usable;
                // A cancel whose notification was lost is found here.
                if session.inflight.len() > 0 {
                    session.cancels.notify_one();
                }
                continue;
            }
            Some(Ok(Lease::Lost)) => {
                session.lost.cancel();
                return;
            }
            Some(Err(error)) => {
                session.parts.metrics.renewal_failed();
                tracing::warn!(%error, node_id = %session.node, "cannot renew the lease; trying again");
            }
            None => session.parts.metrics.renewal_failed(),
        }
        let is_down = tokio::time::timeout(term / RESERVE, store.is_down()).await.unwrap_or(false);
        if is_down {
            // Nobody can renew and nobody is judged: this time does not count.
            good_until += asked_at.elapsed();
        } else if Instant::now() >= good_until {
            tracing::warn!(node_id = %session.node, "the lease runs out before it can be renewed; its jobs are given up");
            session.lost.cancel();
            return;
        }
    }
}

/// Gives the jobs of dead nodes back to the queue until the session is over.
pub async fn rescue(session: Arc<Session>) {
    let mut every = renewals(&session);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = session.over.cancelled() => return,
        }
        if let Err(error) = rescue_once(&session).await {
            tracing::warn!(%error, node_id = %session.node, "cannot look for dead nodes");
        }
    }
}

async fn rescue_once(session: &Session) -> Result<()> {
    for job in session.parts.lease_store.rescue_jobs(lease_term(&session.parts)).await? {
        tracing::warn!(
            request_id = job.request_id, batch_id = %job.batch_id, run_id = %job.run_id, job_id = job.claim.job_id,
            attempt = job.claim.number, lane_id = job.lane_id, node_id = %job.node,
            "job was lost with its node; it goes back to the queue"
        );
    }
    Ok(())
}

fn renewals(session: &Session) -> Interval {
    let mut every = interval(Duration::from_millis(session.parts.config.numbers.lease_renewal_ms));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}
