//! Jobs: kinds, states and the table of allowed transitions, and how attempts end.

use std::fmt;

use super::text_enum::text_enum;

text_enum! {
    /// What a job does.
    JobKind {
        /// Puts one scenario to one model.
        ProbeScenario = "probe:scenario",
        /// Counts, means and intervals over a run's probes.
        AnalyzeBasic = "analyze:basic",
        /// Correlations, effects, components and outliers over a run's probes.
        AnalyzeDeep = "analyze:deep",
    }
}

impl JobKind {
    /// The end of the names of this kind's own settings, as in `RUNLANE_RETRY_LIMIT_PROBE_SCENARIO`.
    #[must_use]
    pub const fn env_suffix(self) -> &'static str {
        match self {
            Self::ProbeScenario => "PROBE_SCENARIO",
            Self::AnalyzeBasic => "ANALYZE_BASIC",
            Self::AnalyzeDeep => "ANALYZE_DEEP",
        }
    }

    /// Whether the kind analyses a run rather than probing a model.
    #[must_use]
    pub const fn is_analysis(self) -> bool {
        !matches!(self, Self::ProbeScenario)
    }
}

text_enum! {
    /// The stored state of a job. Clients see [`TaskStatus`].
    JobState {
        /// Waits to be claimed, not before its `run_at`.
        Pending = "pending",
        /// Claimed by a node.
        Active = "active",
        /// Its result is stored. Final.
        Completed = "completed",
        /// Gave up: a dead letter. Final until retried.
        Failed = "failed",
        /// Will not run. Final.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// The transitions that exist; everything else is refused.
    pub const TRANSITIONS: &'static [(Self, Self)] = &[
        (Self::Pending, Self::Active),
        (Self::Pending, Self::Cancelled),
        (Self::Pending, Self::Failed),
        (Self::Active, Self::Completed),
        (Self::Active, Self::Failed),
        (Self::Active, Self::Cancelled),
        (Self::Active, Self::Pending),
        (Self::Failed, Self::Pending),
    ];

    /// Whether a job may go from `self` to `to`.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        Self::TRANSITIONS.contains(&(self, to))
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// What clients see.
    #[must_use]
    pub const fn status(self) -> TaskStatus {
        match self {
            Self::Pending => TaskStatus::Pending,
            Self::Active => TaskStatus::Running,
            Self::Completed => TaskStatus::Completed,
            Self::Failed => TaskStatus::Failed,
            Self::Cancelled => TaskStatus::Cancelled,
        }
    }
}

text_enum! {
    /// The status of a job as clients see it.
    TaskStatus {
        /// Waits.
        Pending = "PENDING",
        /// Claimed by a node.
        Running = "RUNNING",
        /// Its result is stored.
        Completed = "COMPLETED",
        /// Gave up.
        Failed = "FAILED",
        /// Will not run.
        Cancelled = "CANCELLED",
    }
}

text_enum! {
    /// How an attempt ended: exactly one of these.
    AttemptOutcome {
        /// Its result is stored.
        Completed = "completed",
        /// A counted failure; the job gave up.
        Failed = "failed",
        /// A counted failure; the job waits for its next attempt.
        Retried = "retried",
        /// The provider asked to slow down; nothing is counted.
        Throttled = "throttled",
        /// The worker or the node died under it; a loss is counted.
        Lost = "lost",
        /// Given back by a node that drains; nothing is counted.
        Released = "released",
        /// Stopped by a cancel.
        Cancelled = "cancelled",
    }
}

/// Identifies one claim of one job; every write about an attempt carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job.
    pub job_id: i64,
    /// The number of the claim: 1, 2, 3 …, never used twice for a job.
    pub number: i32,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.job_id, self.number)
    }
}

/// A job that may not be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JobValidationError {
    /// Only a job that waits or runs can be cancelled.
    #[error("Cannot cancel job {id} in {status} state: only a PENDING or RUNNING job can be cancelled")]
    CannotCancel {
        /// The job.
        id: i64,
        /// Its status when the action was refused.
        status: TaskStatus,
    },
    /// Only a job that gave up can be retried.
    #[error("Cannot retry job {id} in {status} state: only a FAILED job can be retried")]
    CannotRetry {
        /// The job.
        id: i64,
        /// Its status when the action was refused.
        status: TaskStatus,
    },
    /// Only a job that waits can be given up by hand.
    #[error(
        "Cannot dead-letter job {id} in {status} state: only a PENDING job can be given up; cancel one that runs"
    )]
    CannotBury {
        /// The job.
        id: i64,
        /// Its status when the action was refused.
        status: TaskStatus,
    },
    /// The job's run takes no retries any more.
    #[error("Cannot retry job {id}: its run is {run}, so start a new run instead")]
    CannotRetryInRun {
        /// The job.
        id: i64,
        /// The status of its run.
        run: super::run::RunStatus,
    },
    /// Only a job that runs can be taken from its node.
    #[error("Cannot release job {id} in {status} state: only a RUNNING job can be taken from its node")]
    CannotRelease {
        /// The job.
        id: i64,
        /// Its status when the action was refused.
        status: TaskStatus,
    },
    /// The job runs under another claim.
    #[error("Cannot release attempt {asked} of job {id}: it runs as attempt {current}")]
    CannotReleaseAttempt {
        /// The job.
        id: i64,
        /// The number of the claim that was meant.
        asked: i32,
        /// The number of the claim under which it runs.
        current: i32,
    },
}

impl JobValidationError {
    /// The job's status, where that is why; for clients.
    #[must_use]
    pub const fn status(self) -> Option<TaskStatus> {
        match self {
            Self::CannotCancel { status, .. }
            | Self::CannotRetry { status, .. }
            | Self::CannotBury { status, .. }
            | Self::CannotRelease { status, .. } => Some(status),
            Self::CannotReleaseAttempt { .. } => Some(TaskStatus::Running),
            Self::CannotRetryInRun { .. } => None,
        }
    }

    /// What was asked, as clients are told.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::CannotCancel { .. } => "cancel",
            Self::CannotBury { .. } => "deadLetter",
            Self::CannotRetry { .. } | Self::CannotRetryInRun { .. } => "retry",
            Self::CannotRelease { .. } | Self::CannotReleaseAttempt { .. } => "release",
        }
    }
}

impl JobState {
    /// Whether the job `id` in this state may be cancelled.
    ///
    /// # Errors
    /// [`JobValidationError::CannotCancel`] unless it waits or runs.
    pub fn allow_cancel(self, id: i64) -> Result<(), JobValidationError> {
        if matches!(self, Self::Pending | Self::Active) {
            Ok(())
        } else {
            Err(JobValidationError::CannotCancel { id, status: self.status() })
        }
    }

    /// Whether the job `id` in this state may be given up by hand.
    ///
    /// # Errors
    /// [`JobValidationError::CannotBury`] unless it waits.
    pub fn allow_burial(self, id: i64) -> Result<(), JobValidationError> {
        if self == Self::Pending {
            Ok(())
        } else {
            Err(JobValidationError::CannotBury { id, status: self.status() })
        }
    }

    /// Whether the job `id` in this state may be retried.
    ///
    /// # Errors
    /// [`JobValidationError::CannotRetry`] unless it failed.
    pub fn allow_retry(self, id: i64) -> Result<(), JobValidationError> {
        if self == Self::Failed {
            Ok(())
        } else {
            Err(JobValidationError::CannotRetry { id, status: self.status() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_only_leave_failed_and_only_to_pending() {
        for &from in JobState::ALL {
            for &to in JobState::ALL {
                let leaves_final = matches!(from, JobState::Completed | JobState::Cancelled);
                assert!(!(leaves_final && from.may_become(to)), "{from} → {to}");
            }
        }
        assert!(JobState::Failed.may_become(JobState::Pending));
        assert!(!JobState::Failed.may_become(JobState::Active));
    }

    #[test]
    fn what_may_be_done_to_a_job_is_what_its_transitions_allow() {
        for &state in JobState::ALL {
            assert_eq!(state.allow_cancel(7).is_ok(), state.may_become(JobState::Cancelled), "{state}");
            assert_eq!(state.allow_retry(7).is_ok(), state == JobState::Failed, "{state}");
        }
        let refused = JobState::Completed.allow_cancel(7).unwrap_err();
        assert!(refused.to_string().starts_with("Cannot cancel job 7 in COMPLETED state"));
    }

    #[test]
    fn unknown_text_is_an_error() {
        assert!("done".parse::<JobState>().is_err());
        assert_eq!("analyze:deep".parse::<JobKind>().unwrap(), JobKind::AnalyzeDeep);
    }
}
