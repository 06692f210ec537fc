//! Points at which tests have the process die, before and after the commits that matter.
//!
//! With the feature `failpoints`, `FAILPOINTS="claim.after=2*off->return"` has the third claim that commits be the last thing
//! that the process does. Without the feature nothing of this is compiled in.

use super::{JobChange, RunChange};

/// Ends the process as `kill -9` does, if FAILPOINTS names this point.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "nothing is left of it"))]
pub(super) fn crash_point(point: &str) {
    fail::fail_point!(point, |_| {
        tracing::warn!(point, "dying on purpose");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
    });
}

impl RunChange {
    /// The points before and after its commit.
    pub(super) const fn points(self) -> (&'static str, &'static str) {
        match self {
            Self::Pause => ("pause.before", "pause.after"),
            Self::Resume => ("resume.before", "resume.after"),
            Self::Cancel(_) => ("cancel.before", "cancel.after"),
            Self::SetPriority(_) => ("priority.before", "priority.after"),
            Self::StartAnalysis(_) => ("analysis.before", "analysis.after"),
        }
    }
}

impl JobChange {
    /// The points before and after its commit.
    pub(super) const fn points(self) -> (&'static str, &'static str) {
        match self {
            Self::Cancel => ("cancel-job.before", "cancel-job.after"),
            Self::Retry => ("retry-job.before", "retry-job.after"),
        }
    }
}
