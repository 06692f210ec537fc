//! Runs: statuses, what may be done in each, and priorities.

use super::text_enum::text_enum;

text_enum! {
    /// The status of a run.
    RunStatus {
        /// No job of it has been claimed yet.
        Pending = "PENDING",
        /// Its jobs may start.
        Running = "RUNNING",
        /// No further job of it starts.
        Paused = "PAUSED",
        /// Every probe job is finished, failures included.
        Completed = "COMPLETED",
        /// The run's own guard stopped it.
        Failed = "FAILED",
        /// A person stopped it.
        Cancelled = "CANCELLED",
    }
}

text_enum! {
    /// What people do to a run.
    RunAction {
        /// Let no further job start.
        Pause = "pause",
        /// Let jobs start again.
        Resume = "resume",
        /// Stop for good.
        Cancel = "cancel",
        /// Change its place in the queue.
        SetPriority = "set priority of",
        /// Run failed probes again.
        RetryFailed = "retry failed jobs of",
        /// Compute an analysis.
        StartAnalysis = "start analysis of",
        /// Change what it may cost.
        SetBudget = "set budget of",
        /// Hide it, and remove it later.
        Delete = "delete",
    }
}

impl RunAction {
    /// The action as clients are told it, in `extensions.action`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::SetPriority => "setPriority",
            Self::RetryFailed => "retryFailedJobs",
            Self::StartAnalysis => "startAnalysis",
            Self::SetBudget => "setBudget",
            Self::Delete => "delete",
        }
    }
}

text_enum! {
    /// How a cancel treats jobs that have started.
    CancelMode {
        /// Active jobs finish and are kept.
        Graceful = "GRACEFUL",
        /// Workers are told to stop at once.
        Immediate = "IMMEDIATE",
    }
}

/// What an allowed action makes of the run's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Not allowed in this status.
    Refused,
    /// Allowed; the status stays.
    Stays,
    /// Allowed; the status becomes this one.
    Becomes(RunStatus),
}

/// An action that the run's status does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Cannot {action} run in {current} state")]
pub struct RunStateError {
    /// The run's status when the action was refused.
    pub current: RunStatus,
    /// What was asked.
    pub action: RunAction,
}

impl RunStatus {
    /// What `action` does to a run in this status: the one table of control.
    ///
    /// `retryFailedJobs` with nothing failed changes nothing, and a second cancel changes no status.
    #[must_use]
    pub const fn permission(self, action: RunAction) -> Permission {
        use Permission::{Becomes, Refused, Stays};
        use RunStatus::{Cancelled, Completed, Failed, Paused, Pending, Running};
        match (action, self) {
            (RunAction::Pause, Pending | Running) => Becomes(Paused),
            (RunAction::Resume, Paused) => Becomes(Running),
            (RunAction::Cancel, Pending | Running | Paused) => Becomes(Cancelled),
            (RunAction::Cancel, Cancelled) => Stays,
            (RunAction::SetPriority, Pending | Running | Paused) => Stays,
            (RunAction::SetBudget, Pending | Running | Paused | Completed | Failed) => Stays,
            (RunAction::RetryFailed, Running | Paused) => Stays,
            (RunAction::RetryFailed, Completed | Failed) => Becomes(Running),
            (RunAction::StartAnalysis, Running | Paused | Completed | Failed | Cancelled) => Stays,
            (RunAction::Delete, Completed | Failed | Cancelled) => Stays,
            (RunAction::Pause | RunAction::Resume | RunAction::SetPriority | RunAction::Delete, _)
            | (RunAction::Cancel, Completed | Failed)
            | (RunAction::RetryFailed, Pending | Cancelled)
            | (RunAction::SetBudget, Cancelled)
            | (RunAction::StartAnalysis, Pending) => Refused,
        }
    }

    /// The transitions that nobody asks for: a first claim, the end of the last probe, and the run's own guard.
    pub const BY_ITSELF: &'static [(Self, Self)] = &[
        (Self::Pending, Self::Running),
        (Self::Pending, Self::Completed),
        (Self::Running, Self::Completed),
        (Self::Paused, Self::Completed),
        (Self::Running, Self::Failed),
    ];

    /// Every transition that exists: those that people ask for, and those that nobody does.
    #[must_use]
    pub fn transitions() -> Vec<(Self, Self)> {
        let asked = Self::ALL.iter().flat_map(|&from| {
            RunAction::ALL.iter().filter_map(move |&action| match from.permission(action) {
                Permission::Becomes(to) => Some((from, to)),
                Permission::Refused | Permission::Stays => None,
            })
        });
        asked.chain(Self::BY_ITSELF.iter().copied()).collect()
    }

    /// The permission as a result.
    ///
    /// # Errors
    /// [`RunStateError`] where the table refuses.
    pub const fn allow(self, action: RunAction) -> Result<Self, RunStateError> {
        match self.permission(action) {
            Permission::Refused => Err(RunStateError { current: self, action }),
            Permission::Stays => Ok(self),
            Permission::Becomes(to) => Ok(to),
        }
    }

    /// Whether nothing but "retry failed jobs" changes the run any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How urgent a run is. Stored as 0 to 100; these are the named steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunPriority {
    /// 0
    Low,
    /// 5
    Normal,
    /// 10
    High,
}

impl RunPriority {
    /// The stored number.
    #[must_use]
    pub const fn value(self) -> i16 {
        match self {
            Self::Low => 0,
            Self::Normal => 5,
            Self::High => 10,
        }
    }

    /// The named step at or below a stored number.
    #[must_use]
    pub const fn from_value(value: i16) -> Self {
        match value {
            i16::MIN..=4 => Self::Low,
            5..=9 => Self::Normal,
            _ => Self::High,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_for_people() {
        let refused = RunStatus::Completed.allow(RunAction::Pause).unwrap_err();
        assert_eq!(refused.to_string(), "Cannot pause run in COMPLETED state");
    }

    #[test]
    fn only_a_retry_leaves_a_final_status() {
        let leaving: Vec<_> =
            RunStatus::transitions().into_iter().filter(|(from, _)| from.is_final()).collect();
        let reopened = |from| (from, RunStatus::Running);
        assert_eq!(leaving, [reopened(RunStatus::Completed), reopened(RunStatus::Failed)]);
    }

    #[test]
    fn final_runs_accept_no_control_but_retry_analysis_and_a_second_cancel() {
        for &status in RunStatus::ALL.iter().filter(|s| s.is_final()) {
            assert_eq!(status.permission(RunAction::Pause), Permission::Refused);
            assert_eq!(status.permission(RunAction::Resume), Permission::Refused);
            assert_eq!(status.permission(RunAction::SetPriority), Permission::Refused);
        }
    }
}
