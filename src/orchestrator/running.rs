//! One attempt, from the claim to its verdict.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;

use super::request::AnalysisInput;
use super::session::Session;
use super::slots::Slot;
use super::{request, verdict};
use crate::domain::ErrorCode;
use crate::domain::work::{AttemptEnd, RunContext, Work};
use crate::executor::{Finished, Outcome, Spent, Stop, StopReason, WorkerError};
use crate::store::{self, Interruption};

/// An attempt that ended, on its way to the database.
#[derive(Debug)]
pub struct Ending {
    /// What ran.
    pub work: Arc<Work>,
    /// What its run's jobs share.
    pub context: Arc<RunContext>,
    /// How it ended.
    pub end: AttemptEnd,
}

/// An attempt that runs.
pub struct Running {
    /// The node.
    pub session: Arc<Session>,
    /// What runs.
    pub work: Arc<Work>,
    /// What its run's jobs share.
    pub context: Arc<RunContext>,
    /// Freed when the worker is done with it.
    pub slot: Slot,
}

impl Running {
    /// Runs the attempt and hands its end to the writer, whatever happens.
    pub async fn execute(self, stop: Stop, ends: mpsc::Sender<Ending>) {
        let Self { session, work, context, slot } = self;
        let rules = session.rules(work.kind);
        let attempt = AssertUnwindSafe(run(&session, &work, &context, stop)).catch_unwind().await;
        if let Ok(Finished { outcome: Outcome::Unstartable { message, retry_after }, .. }) = &attempt {
            let provider = request::provider(&work);
            tracing::warn!(message, ?retry_after, provider, node_id = %session.node, "no worker could be started; the node claims nothing of the kind until then");
            session.hold(provider, *retry_after);
        }
        let end = match attempt {
            Ok(finished) => verdict::judge(&work, finished, rules, &mut rng()),
            Err(_) => verdict::panicked(&work, rules, &mut rng()),
        };
        // A full channel holds the slot: a slow database lengthens the time between claims.
        if ends.send(Ending { work, context, end }).await.is_err() {
            tracing::error!(node_id = %session.node, "the writer is gone; the lease will run out");
        }
        drop(slot);
    }
}

async fn run(session: &Session, work: &Work, context: &RunContext, stop: Stop) -> Finished {
    fail::fail_point!("attempt");
    let finished =
        |outcome| Finished { claim: work.claim, outcome, stderr_tail: "".into(), worker_pid: None };
    if let Some(reason) = stop.reason() {
        let outcome = match reason {
            StopReason::Cancel => Outcome::Cancelled { spent: Spent::default() },
            StopReason::Release => Outcome::Released { spent: Spent::default() },
        };
        return finished(outcome);
    }
    let input = if work.kind.is_analysis() {
        match analysis_input(session, work).await {
            Ok(input) => input,
            Err(error) => {
                tracing::warn!(%error, run_id = %work.run_id, job_id = work.claim.job_id, "cannot read the records of a run; the job is given back");
                let retry_after = std::time::Duration::from_secs(1);
                return finished(Outcome::Unstartable { message: error.to_string(), retry_after });
            }
        }
    } else {
        AnalysisInput::default()
    };
    match request::job(work, context, &input, session.parts.config.kind(work.kind)) {
        Ok(job) => session.parts.executor.run(job, stop).await,
        Err(error) => {
            tracing::error!(%error, run_id = %work.run_id, job_id = work.claim.job_id, "a job cannot be put into words");
            finished(Outcome::Failed(WorkerError {
                code: ErrorCode::Validation,
                message: "the job's stored payload cannot be sent to a worker".to_owned(),
                retryable: false,
                retry_after: None,
                http_status: None,
                detail: None,
                spent: Spent::default(),
            }))
        }
    }
}

async fn analysis_input(session: &Session, work: &Work) -> store::Result<AnalysisInput> {
    let store = &session.parts.store;
    Ok(AnalysisInput {
        records: store.analysis_records(work.run_id).await?,
        previous: store.previous_analysis(work.run_id, work.kind).await?,
    })
}

/// Stops the jobs of this node that somebody cancelled or took away, whenever there may be some.
pub async fn watch_cancels(session: Arc<Session>) {
    let mut cancels = session.cancels.subscribe();
    cancels.mark_changed();
    loop {
        tokio::select! {
            _ = cancels.changed() => {}
            () = session.over.cancelled() => return,
        }
        let claims = session.inflight.claims();
        if claims.is_empty() {
            continue;
        }
        match session.parts.store.interrupted(session.node, &claims).await {
            Ok(interrupted) => interrupted.into_iter().for_each(|(claim, why)| match why {
                Interruption::Cancelled => session.inflight.stop(claim, StopReason::Cancel),
                Interruption::Gone => session.inflight.stop(claim, StopReason::Release),
            }),
            // The next renewal of the lease looks again.
            Err(error) => tracing::warn!(%error, node_id = %session.node, "cannot look for cancelled jobs"),
        }
    }
}

/// Randomness for delays: seeded by the operating system, nothing depends on it being secret.
pub(super) fn rng() -> ChaCha8Rng {
    ChaCha8Rng::from_rng(&mut rand::rngs::ThreadRng::default())
}

/// Uniform within 0 … 1.
pub(super) fn random_fraction() -> f64 {
    rng().random()
}
