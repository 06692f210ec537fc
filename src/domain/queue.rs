//! The whole queue, and what it refuses.

use chrono::{DateTime, Utc};

use super::JobKind;
use super::rate_limit::RateLimit;

/// The whole queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStatus {
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
    /// Providers that wait for somebody to look.
    pub held_providers: Vec<RateLimit>,
    /// One entry a kind, always all of them.
    pub kinds: Vec<KindStatus>,
}

/// The jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindStatus {
    /// Which.
    pub kind: JobKind,
    /// Wait now.
    pub pending: i64,
    /// Are claimed now.
    pub active: i64,
    /// Completed in the last 24 hours.
    pub completed: i64,
    /// Failed in the last 24 hours.
    pub failed: i64,
}

/// The queue refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A run would have more jobs than a run may have.
    #[error(
        "The run would have {jobs} jobs, and a run may have at most {limit}: sample fewer scenarios or give fewer models"
    )]
    TooManyJobs {
        /// The jobs that the run would have.
        jobs: u64,
        /// The most that it may have.
        limit: u64,
    },
    /// A user would have more jobs waiting than one may have.
    #[error(
        "The run would have {jobs} jobs beside the {waiting} that already wait in your runs, and at most {limit} may wait: let some finish, cancel a run, or sample fewer scenarios"
    )]
    TooManyWaiting {
        /// The jobs that the run would have.
        jobs: u64,
        /// The user's jobs that wait already.
        waiting: u64,
        /// The most that may wait.
        limit: u64,
    },
}

/// How many jobs a run of `scenarios` × `models` has.
///
/// # Errors
/// [`QueueError::TooManyJobs`] above `limit`.
pub const fn job_count(scenarios: usize, models: usize, limit: u64) -> Result<u64, QueueError> {
    let jobs = (scenarios as u64).saturating_mul(models as u64);
    if jobs > limit { Err(QueueError::TooManyJobs { jobs, limit }) } else { Ok(jobs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_at_most_the_limit() {
        assert_eq!(job_count(10, 10, 100), Ok(100));
        assert_eq!(job_count(101, 1, 100), Err(QueueError::TooManyJobs { jobs: 101, limit: 100 }));
        assert!(job_count(usize::MAX, usize::MAX, 100).is_err());
    }
}
