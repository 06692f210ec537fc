//! Puts the ends of attempts on record: everything that has gathered while the last transaction ran goes into the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::running::{Ending, rng};
use super::session::Session;
use super::verdict;
use crate::domain::job::Claim;
use crate::domain::{AttemptOutcome, JobState};
use crate::store::Error;

/// The first wait before a batch is written again after an error; doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Writes until every sender is gone.
pub async fn write(session: Arc<Session>, mut ends: mpsc::Receiver<Ending>) {
    let most = session.parts.config.numbers.completion_batch_max;
    let mut batch = Vec::with_capacity(most);
    while ends.recv_many(&mut batch, most).await > 0 {
        record(&session, std::mem::take(&mut batch)).await;
    }
}

/// Records a batch; one that the database refuses is halved until the culprit stands alone.
async fn record(session: &Session, batch: Vec<Ending>) {
    let mut work = vec![batch];
    while let Some(batch) = work.pop() {
        let refused = match record_whole(session, &batch).await {
            Ok(()) => continue,
            Err(refused) => refused,
        };
        let mut batch = batch;
        if batch.len() > 1 {
            work.push(batch.split_off(batch.len() / 2));
            work.push(batch);
        } else if let Some(ending) = batch.pop() {
            replace(session, ending, &refused).await;
        }
    }
}

/// The database refuses this one result: its job fails for that, and nobody else's.
async fn replace(session: &Session, ending: Ending, refused: &Error) {
    tracing::warn!(
        error = %refused, run_id = %ending.work.run_id, job_id = ending.work.claim.job_id, attempt = ending.work.claim.number,
        "the database refused a result; the attempt fails for it"
    );
    let end = verdict::unstorable(&ending.work, session.rules(ending.work.kind), &mut rng());
    let ending = Ending { end, ..ending };
    if let Err(error) = record_whole(session, std::slice::from_ref(&ending)).await {
        // Nothing in this end comes from the worker, so this is a fault of the program; the lease's end will free the job.
        tracing::error!(%error, job_id = ending.work.claim.job_id, "the database refuses to end an attempt");
        session.inflight.end(ending.work.claim);
    }
}

/// Records a batch in one transaction, for as long as it takes or until the lease is lost.
async fn record_whole(session: &Session, batch: &[Ending]) -> Result<(), Error> {
    let store = &session.parts.store;
    let hold_jobs = session.parts.config.numbers.crash_hold_jobs;
    let ends: Vec<_> = batch.iter().map(|e| e.end.clone()).collect();
    let mut pause = RETRY_FIRST;
    let mut answer_lost = false;
    loop {
        match store.end_attempts(session.node, &ends, hold_jobs).await {
            Ok(ended) => {
                settle(session, batch, &ended, answer_lost).await;
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                if session.lost.is_cancelled() {
                    tracing::warn!(%error, node_id = %session.node, ends = ends.len(), "ends of lost claims are dropped");
                    batch.iter().for_each(|e| session.inflight.end(e.work.claim));
                    return Ok(());
                }
                answer_lost = true;
                tracing::warn!(%error, node_id = %session.node, ends = ends.len(), "cannot record ends; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(error) => return Err(error),
        }
    }
}

/// One line for each end that is on record.
fn log(session: &Session, ending: &Ending, state: JobState) {
    let Ending { work, context, end } = ending;
    let code = end.error.as_ref().map(|e| e.code.as_str());
    let message = match end.outcome {
        AttemptOutcome::Completed => "job completed",
        AttemptOutcome::Failed => "job failed",
        AttemptOutcome::Retried => "job will be retried",
        AttemptOutcome::Throttled => "job was throttled",
        AttemptOutcome::Lost => "job was lost",
        AttemptOutcome::Released => "job was released",
        AttemptOutcome::Cancelled => "job was cancelled",
    };
    tracing::info!(
        request_id = context.request_id, batch_id = %context.batch_id, run_id = %work.run_id, job_id = work.claim.job_id,
        attempt = work.claim.number, lane_id = work.lane_id, node_id = %session.node, kind = %work.kind,
        outcome = %end.outcome, state = state.as_str(), code, delay_ms = u64::try_from(end.delay.as_millis()).unwrap_or(u64::MAX),
        "{message}"
    );
}

/// Notes what was recorded and what came too late.
async fn settle(session: &Session, batch: &[Ending], ended: &[(i64, JobState)], answer_lost: bool) {
    let states: std::collections::HashMap<i64, JobState> = ended.iter().copied().collect();
    let mut late: Vec<&Ending> = Vec::new();
    for ending in batch {
        session.inflight.end(ending.work.claim);
        match states.get(&ending.work.claim.job_id) {
            Some(state) => {
                session.parts.metrics.ended(ending.work.kind, ending.end.outcome);
                log(session, ending, *state);
            }
            None => late.push(ending),
        }
    }
    // What went back is known now, and a ceiling of the run may have room again.
    session.wake.notify_one();
    if late.is_empty() {
        return;
    }
    let claims: Vec<Claim> = late.iter().map(|e| e.work.claim).collect();
    // An earlier try may have committed without our hearing of it: then these are on record, not late.
    let recorded = if answer_lost {
        session.parts.store.recorded(session.node, &claims).await.unwrap_or_else(|error| {
            tracing::warn!(%error, node_id = %session.node, "cannot tell late results from recorded ones; all count as late");
            Vec::new()
        })
    } else {
        Vec::new()
    };
    for ending in late.into_iter().filter(|e| !recorded.contains(&e.work.claim)) {
        session.count_late_result();
        tracing::warn!(
            code = "LEASE_LOST", request_id = ending.context.request_id, batch_id = %ending.context.batch_id, run_id = %ending.work.run_id,
            job_id = ending.work.claim.job_id, attempt = ending.work.claim.number, lane_id = ending.work.lane_id,
            node_id = %session.node, "a result came too late and changed nothing"
        );
    }
}
