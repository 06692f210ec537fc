//! Puts the ends of attempts on record: everything that has gathered while the last transaction ran goes into the next.
//! When many gather, or the last takes long, the next does not wait for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::running::{Ending, rng};
use super::session::{Session, lease_term};
use super::verdict;
use crate::domain::job::Claim;
use crate::domain::work::AttemptResult;
use crate::domain::{AttemptOutcome, JobState};
use crate::store::{Error, Store};

/// The first wait before a batch is written again after an error; doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Transactions that may run at once.
const WRITERS: usize = 2;
/// A pool with fewer connections leaves only one of them to write.
const POOL_MIN: u32 = 5;
/// How long few ends wait for the transaction before them, which may have to wait for somebody else's locks.
const FEW_WAIT: Duration = Duration::from_millis(50);

/// Writes until every sender is gone.
pub async fn write(session: Arc<Session>, mut ends: mpsc::Receiver<Ending>) {
    let numbers = &session.parts.config.numbers;
    let most = numbers.completion_batch_max;
    let writers = if numbers.orchestrator_pool_size < POOL_MIN { 1 } else { WRITERS };
    // A connection for each, because an end is dear to plan. Asking again does no harm, and a silent connection must not hold
    // ends up for long.
    let store = || session.parts.store.on_kept_connections().answered_within(lease_term(&session.parts));
    let mut idle: Vec<Store> = std::iter::repeat_with(store).take(writers).collect();
    let mut writing = FuturesUnordered::new();
    let mut gathered = Vec::new();
    let mut is_open = true;
    // When the few that are gathered have waited long enough.
    let mut due = Instant::now();
    loop {
        let room = most - gathered.len();
        let had_none = gathered.is_empty();
        tokio::select! {
            n = ends.recv_many(&mut gathered, room), if is_open && room > 0 => is_open = n > 0,
            Some(store) = writing.next() => idle.push(store),
            () = tokio::time::sleep_until(due), if !had_none && !idle.is_empty() => {}
            else => break,
        }
        if had_none {
            due = Instant::now() + FEW_WAIT;
        }
        // Few are cheaper together: a statement costs a millisecond, however few it ends.
        let are_many = gathered.len() >= most.div_ceil(2);
        let are_due = !gathered.is_empty() && (writing.is_empty() || are_many || Instant::now() >= due);
        if are_due && let Some(store) = idle.pop() {
            let batch = std::mem::take(&mut gathered);
            let session = &session;
            writing.push(async move {
                record(session, &store, batch).await;
                store
            });
        }
    }
}

/// Records a batch; one that the database refuses is halved until the culprit stands alone.
async fn record(session: &Session, store: &Store, batch: Vec<Ending>) {
    let mut work = bounded(batch, session.parts.config.numbers.completion_batch_max_bytes);
    while let Some(batch) = work.pop() {
        let refused = match record_whole(session, store, &batch).await {
            Ok(()) => continue,
            Err(refused) => refused,
        };
        let mut batch = batch;
        if batch.len() > 1 {
            work.push(batch.split_off(batch.len() / 2));
            work.push(batch);
        } else if let Some(ending) = batch.pop() {
            replace(session, store, ending, &refused).await;
        }
    }
}

/// The batch in parts whose results have so many bytes at most, or are single; PostgreSQL takes no statement of a gigabyte.
fn bounded(batch: Vec<Ending>, max_bytes: usize) -> Vec<Vec<Ending>> {
    let mut parts: Vec<Vec<Ending>> = Vec::new();
    let mut bytes = 0;
    for ending in batch {
        let size = ending.end.result.as_ref().map_or(0, AttemptResult::bytes);
        match parts.last_mut() {
            Some(part) if bytes + size <= max_bytes => part.push(ending),
            _ => {
                parts.push(vec![ending]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts
}

/// The database refuses this one result: its job fails for that, and nobody else's.
async fn replace(session: &Session, store: &Store, ending: Ending, refused: &Error) {
    tracing::warn!(
        error = %refused, run_id = %ending.work.run_id, job_id = ending.work.claim.job_id, attempt = ending.work.claim.number,
        "the database refused a result; the attempt fails for it"
    );
    let end = verdict::unstorable(&ending.work, session.rules(ending.work.kind), &mut rng());
    let ending = Ending { end, ..ending };
    if let Err(error) = record_whole(session, store, std::slice::from_ref(&ending)).await {
        // Nothing in this end comes from the worker, so this is a fault of the program. The claim stays ours, so that
        // nobody runs the job a second time unasked.
        tracing::error!(
            %error, run_id = %ending.work.run_id, job_id = ending.work.claim.job_id, attempt = ending.work.claim.number,
            node_id = %session.node,
            "the database refuses to end an attempt; its job stays active until an admin releases it or this node ends"
        );
    }
}

/// Records a batch in one transaction, for as long as it takes or until the lease is lost.
async fn record_whole(session: &Session, store: &Store, batch: &[Ending]) -> Result<(), Error> {
    let hold_jobs = session.parts.config.numbers.crash_hold_jobs;
    let ends: Vec<_> = batch.iter().map(|e| e.end.clone()).collect();
    // Of one that is not known, all of the node's are looked through.
    let taken_in: Option<BTreeSet<i64>> = batch.iter().map(|e| e.work.taken_in).collect();
    let taken_in: Option<Vec<i64>> = taken_in.map(|ids| ids.into_iter().collect());
    let mut pause = RETRY_FIRST;
    let mut answer_lost = false;
    loop {
        match store.end_attempts_in(session.node, &ends, taken_in.as_deref(), hold_jobs).await {
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

/// One line for each end that is on record; its job's state is only known when the answer came.
fn log(session: &Session, ending: &Ending, state: Option<JobState>) {
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
        outcome = %end.outcome, state = state.map(|s| s.as_str()), code, delay_ms = u64::try_from(end.delay.as_millis()).unwrap_or(u64::MAX),
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
                log(session, ending, Some(*state));
            }
            None => late.push(ending),
        }
    }
    // What went back is known now, and a ceiling of the run may have room again.
    session.wake.notify_one();
    if late.is_empty() {
        return;
    }
    // An earlier try may have committed without our hearing of it: then these are on record, not late.
    let recorded = if answer_lost { recorded(session, &late).await } else { Vec::new() };
    for ending in late {
        if recorded.contains(&ending.work.claim) {
            session.parts.metrics.ended(ending.work.kind, ending.end.outcome);
            log(session, ending, None);
            continue;
        }
        session.count_late_result();
        tracing::warn!(
            code = "LEASE_LOST", request_id = ending.context.request_id, batch_id = %ending.context.batch_id, run_id = %ending.work.run_id,
            job_id = ending.work.claim.job_id, attempt = ending.work.claim.number, lane_id = ending.work.lane_id,
            node_id = %session.node, "a result came too late and changed nothing"
        );
    }
}

/// Which of these ends are on record under this node: asked until there is an answer, or the lease is lost.
async fn recorded(session: &Session, late: &[&Ending]) -> Vec<Claim> {
    let claims: Vec<Claim> = late.iter().map(|e| e.work.claim).collect();
    loop {
        match session.parts.store.recorded(session.node, &claims).await {
            Ok(recorded) => return recorded,
            Err(error) if error.is_transient() && !session.lost.is_cancelled() => {
                tracing::warn!(%error, node_id = %session.node, "cannot tell late results from recorded ones; trying again");
                tokio::time::sleep(RETRY_FIRST).await;
            }
            Err(error) => {
                tracing::warn!(%error, node_id = %session.node, "cannot tell late results from recorded ones; all count as late");
                return Vec::new();
            }
        }
    }
}
