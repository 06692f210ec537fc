//! The search for what has taken too long: one node at a time, in small steps that no claim has to wait for.

use std::sync::Arc;
use std::time::Duration;

use super::leader::lead;
use super::session::Session;
use crate::domain::leader::{Duty, Term};
use crate::domain::staleness::{Action, Health, StalenessFilter, Step};
use crate::store::{Result, Sweep};

/// Looks at every interval while this node leads, until the session is over.
pub async fn detect(session: Arc<Session>) {
    if !session.parts.config.staleness.is_enabled {
        return;
    }
    let interval = Duration::from_millis(session.parts.config.numbers.staleness_interval_ms);
    let metrics = session.parts.metrics.clone();
    lead(session, Duty::Staleness, interval, look).await;
    // Whoever leads next counts.
    metrics.stale_jobs(&[]);
}

async fn look(session: Arc<Session>, term: Term) -> Result<()> {
    let parts = &session.parts;
    let numbers = &parts.config.numbers;
    parts.store.set_staleness_thresholds(Some(term), &parts.config.staleness_thresholds()).await?;
    let counts = parts.store.stale_counts(&StalenessFilter::default(), numbers.count_max).await?;
    parts.metrics.stale_jobs(&counts);
    if parts.config.staleness.is_dry_run {
        for (kind, health, jobs) in counts {
            tracing::info!(%kind, %health, jobs, "dry run: nothing is done about jobs that take long");
        }
        return Ok(());
    }
    let sweeps = [
        Sweep::Waiting,
        // What is taken back starts again when the node that held it has let go of it, or has lost its lease.
        Sweep::Active {
            requeues_max: numbers.staleness_requeues_max,
            delay_ms: i64::try_from(numbers.lease_ms).unwrap_or(i64::MAX),
        },
        Sweep::Runs,
    ];
    for sweep in sweeps {
        while !session.stop_claiming.is_cancelled() {
            let steps = parts.store.sweep_stale(term, sweep, numbers.staleness_batch).await?;
            if steps.is_empty() {
                break;
            }
            for step in steps {
                tell(&session, &step);
            }
        }
    }
    parts.store.prune_staleness(term, numbers.staleness_batch).await
}

/// Counts what was done, and says so.
fn tell(session: &Session, step: &Step) {
    let jobs = if step.lane_id.is_some() { step.jobs.len() } else { 1 };
    if jobs == 0 {
        return;
    }
    session.parts.metrics.staleness_step(step, jobs);
    let (run_id, lane_id, stage) = (step.run_id, step.lane_id, step.stage);
    let first = step.jobs.first();
    match (step.action, step.health) {
        (Action::Report, Health::Stale) => {
            tracing::warn!(%run_id, lane_id, %stage, jobs, first_job_id = first, "stale: beyond the threshold");
        }
        (Action::Report, _) => {
            tracing::warn!(%run_id, lane_id, %stage, jobs, first_job_id = first, "nearly stale");
        }
        (Action::Requeue, _) => {
            tracing::warn!(%run_id, lane_id, %stage, jobs, first_job_id = first, "stale: requeued");
        }
        (Action::Dlq, _) => {
            tracing::warn!(%run_id, lane_id, %stage, jobs, first_job_id = first, "stale: made dead letters");
        }
        (Action::Fail, _) => tracing::warn!(%run_id, %stage, "stale: the run fails, as its definition says"),
    }
}
