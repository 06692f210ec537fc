//! The enums of the surface: the domain's own, written for clients.

use async_graphql::Enum;

use crate::domain;

/// Where a run stands.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::RunStatus")]
pub(super) enum RunStatus {
    /// None of its jobs has started yet.
    Pending,
    /// Its jobs start as slots become free.
    Running,
    /// No further job of it starts until it is resumed; jobs that had started finish.
    Paused,
    /// Every probe is finished; some may have failed.
    Completed,
    /// The run's own guard stopped it.
    Failed,
    /// A person stopped it for good.
    Cancelled,
}

/// How urgent a run is: of all waiting jobs, those of the most urgent runs start first.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::RunPriority")]
pub(super) enum RunPriority {
    /// After all others; 0 as a number.
    Low,
    /// The usual; 5 as a number.
    Normal,
    /// Before all others; 10 as a number.
    High,
}

/// Where a job stands.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::TaskStatus")]
pub(super) enum TaskStatus {
    /// It waits, perhaps for its next attempt; `waitingBecause` says why.
    Pending,
    /// A node works on it.
    Running,
    /// Its result is stored.
    Completed,
    /// It gave up; `retryJob` and `retryFailedJobs` let it try again.
    Failed,
    /// It will not run.
    Cancelled,
}

/// How an attempt ended. Only FAILED and RETRIED count against the job.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::AttemptOutcome")]
pub(super) enum AttemptOutcome {
    /// Its result is stored.
    Completed,
    /// It failed, and the job gave up.
    Failed,
    /// It failed, and the job is tried again.
    Retried,
    /// The provider asked to slow down.
    Throttled,
    /// The worker or the node died under it.
    Lost,
    /// A node that shuts down gave it back.
    Released,
    /// It was stopped by a cancel.
    Cancelled,
}

/// Which analysis of a run.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnalysisKind {
    /// Counts, means and intervals; computed by itself when a run ends.
    Basic,
    /// Correlations, effects, components and outliers; computed when it is asked for.
    Deep,
}

impl From<AnalysisKind> for domain::JobKind {
    fn from(kind: AnalysisKind) -> Self {
        match kind {
            AnalysisKind::Basic => Self::AnalyzeBasic,
            AnalysisKind::Deep => Self::AnalyzeDeep,
        }
    }
}

impl AnalysisKind {
    /// The analysis that a job of this kind computes; none for a probe.
    pub(super) const fn of(kind: domain::JobKind) -> Option<Self> {
        match kind {
            domain::JobKind::ProbeScenario => None,
            domain::JobKind::AnalyzeBasic => Some(Self::Basic),
            domain::JobKind::AnalyzeDeep => Some(Self::Deep),
        }
    }
}

/// What a cancel does with the jobs that have started.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::CancelMode")]
pub(super) enum CancelMode {
    /// They finish, and their results are kept.
    Graceful,
    /// Their workers are stopped at once.
    Immediate,
}

/// What is done about a run or a job that counts as stale.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::definition::StalenessAction")]
pub(super) enum StalenessAction {
    /// It is reported, and nothing else.
    Report,
    /// It is put back into the queue.
    Requeue,
    /// It is given up: a dead letter.
    Dlq,
}

/// What a run's own guard does.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::guard::GuardAction")]
pub(super) enum GuardAction {
    /// Pauses the run: somebody looks, and resumes it.
    Pause,
    /// Ends the run as FAILED: what waits is cancelled, what runs finishes.
    Stop,
}
