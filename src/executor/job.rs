//! What goes in and what comes out: jobs, their outcomes, and the request to stop one.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::payload::Payload;
use crate::domain::crash::Cause;
use crate::domain::job::Claim;
use crate::domain::{ErrorCode, JobKind};

/// One claimed job, ready to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The claim under which it runs; comes back in [`Finished`].
    pub claim: Claim,
    /// Its kind: decides between a warm process and one of its own, and what a result must hold.
    pub kind: JobKind,
    /// Whose model it calls: its worker is one of that provider's.
    pub provider: Option<String>,
    /// The whole `job` message as JSON; its `jobId` is `job_id`.
    pub request: Vec<u8>,
    /// The id by which the worker answers.
    pub job_id: String,
    /// How long the attempt may take, from now. The worker is told the same; the node adds its grace.
    pub deadline: Duration,
    /// A suspect: gets a process of its own.
    pub alone: bool,
    /// An analysis that was told about a stored result: its worker may say that this one still holds.
    pub may_be_unchanged: bool,
}

/// An error event, as the worker said it.
#[derive(Debug, Clone)]
pub struct WorkerError {
    /// What went wrong. A code that is unknown, or that no worker may report, is [`ErrorCode::Unknown`], with the
    /// original in the message.
    pub code: ErrorCode,
    /// For people; at most [`super::payload::MESSAGE_MAX_CHARS`] characters.
    pub message: String,
    /// Whether the worker thinks that another try may help.
    pub retryable: bool,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// The provider's HTTP status.
    pub http_status: Option<u16>,
    /// Whatever else the worker knows.
    pub detail: Option<serde_json::Value>,
    /// What was used before the error.
    pub spent: Spent,
}

/// What an attempt that did not complete used all the same, as far as its worker said so.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// Tokens: `{"input", "output", …}`.
    pub usage: Option<Box<RawValue>>,
    /// US dollars; never negative. `None` when no price is known.
    pub cost_usd: Option<Decimal>,
}

/// How an attempt ended. Exactly one for each job.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The result came back and has the right shape.
    Completed(Payload),
    /// The work failed: as the worker said, or by the node's finding that the deadline passed.
    Failed(WorkerError),
    /// The process is gone, or wrote what is no answer. No failure of the work.
    Lost {
        /// `WorkerCrash`, `MalformedOutput` or `Protocol`.
        code: ErrorCode,
        /// The signal, the exit code, or what was wrong with the output.
        message: String,
        /// No other job was in that process.
        alone: bool,
        /// The same, for the crash's fingerprint.
        cause: Cause,
        /// This job may be the cause: run it again alone. Otherwise the cause is known to lie elsewhere.
        suspect: bool,
    },
    /// Stopped by people.
    Cancelled {
        /// What was used until then.
        spent: Spent,
    },
    /// Stopped because this node gives it back.
    Released {
        /// What was used until then.
        spent: Spent,
    },
    /// Nothing was sent: no worker process could be started. Give the job back without blame, and slow down.
    Unstartable {
        /// Why.
        message: String,
        /// No start is tried before.
        retry_after: Duration,
    },
}

/// The one answer to a job.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The claim under which it ran.
    pub claim: Claim,
    /// How it ended.
    pub outcome: Outcome,
    /// The end of the worker's stderr: of a warm process all its jobs', bounded, lossily decoded.
    pub stderr_tail: Arc<str>,
    /// The process that had the job; `None` when none got it.
    pub worker_pid: Option<u32>,
}

/// Why a running job is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// People cancelled it.
    Cancel,
    /// The node drains and gives the job back.
    Release,
}

impl StopReason {
    pub(super) const fn outcome(self, spent: Spent) -> Outcome {
        match self {
            Self::Cancel => Outcome::Cancelled { spent },
            Self::Release => Outcome::Released { spent },
        }
    }
}

/// Stops the jobs that hold the matching [`Stop`]. Dropping it stops nothing.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Option<StopReason>>);

impl Stopper {
    /// Asks to stop. A later `Cancel` overrides a `Release`, never the reverse.
    pub fn stop(&self, reason: StopReason) {
        self.0.send_if_modified(|current| {
            let changes = *current != Some(reason) && *current != Some(StopReason::Cancel);
            if changes {
                *current = Some(reason);
            }
            changes
        });
    }
}

/// The receiving end of a [`Stopper`]; clones share it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<StopReason>>);

impl Stop {
    /// A connected pair.
    #[must_use]
    pub fn pair() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(None);
        (Stopper(sender), Self(receiver))
    }

    /// A signal that never comes.
    #[must_use]
    pub fn never() -> Self {
        Self::pair().1
    }

    /// The reason, once asked.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Waits for the request; for ever when nobody can make it any more.
    pub async fn requested(&mut self) -> StopReason {
        match self.0.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_overrides_a_release_and_not_the_reverse() {
        let (stopper, stop) = Stop::pair();
        assert_eq!(stop.reason(), None);
        stopper.stop(StopReason::Release);
        stopper.stop(StopReason::Cancel);
        assert_eq!(stop.reason(), Some(StopReason::Cancel));
        stopper.stop(StopReason::Release);
        assert_eq!(stop.reason(), Some(StopReason::Cancel));
    }

    #[tokio::test]
    async fn a_dropped_stopper_stops_nothing_and_keeps_what_it_said() {
        let (stopper, mut stop) = Stop::pair();
        stopper.stop(StopReason::Cancel);
        drop(stopper);
        assert_eq!(stop.requested().await, StopReason::Cancel);
        let mut never = Stop::never();
        tokio::select! {
            biased;
            reason = never.requested() => panic!("{reason:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
