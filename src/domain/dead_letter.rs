//! Dead letters: jobs that gave up, kept to be understood, resolved and redriven.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::page::Listed;
use super::text_enum::text_enum;
use super::{JobKind, JobState};

text_enum! {
    /// Why a job gave up.
    DeadLetterReason {
        /// It waited or ran for longer than its staleness policy allows.
        StalenessTimeout = "staleness_timeout",
        /// Its counted failures, or the time that it may wait for throttling, were used up.
        MaxRetriesExceeded = "max_retries_exceeded",
        /// It waits for what waits for it.
        DependencyCycleDetected = "dependency_cycle_detected",
        /// Nothing could run it.
        WorkerUnavailable = "worker_unavailable",
        /// A person gave it up.
        ManualDlq = "manual_dlq",
        /// What went wrong goes wrong again, or its run takes no retries.
        NonRetryable = "non_retryable",
        /// It killed its worker again and again while it ran alone.
        CrashLoop = "crash_loop",
    }
}

text_enum! {
    /// What has become of a dead letter.
    DeadLetterStatus {
        /// Nobody has dealt with it.
        Pending = "pending",
        /// Dealt with: by a person's decision, or because the job tries again.
        ManuallyResolved = "manually_resolved",
        /// The job stays failed, and that is accepted.
        PermanentlyFailed = "permanently_failed",
        /// Nobody needs the result any more.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// How a person closes a dead letter.
    Resolution {
        /// Dealt with.
        ManuallyResolved = "manually_resolved",
        /// The job stays failed, and that is accepted.
        PermanentlyFailed = "permanently_failed",
        /// Nobody needs the result any more.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// Why a dead letter is not redriven.
    RedriveObstacle {
        /// It is closed already.
        AlreadyResolved = "already_resolved",
        /// Its job is no longer failed, or has tried again since.
        Superseded = "superseded",
        /// Its run was cancelled, which is for good.
        RunCancelled = "run_cancelled",
    }
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its id; grows.
    pub id: i64,
    /// The job that gave up.
    pub job_id: i64,
    /// How often the job had been let try again before.
    pub epoch: i32,
    /// The job's run.
    pub run_id: Uuid,
    /// The run's definition.
    pub definition_id: Uuid,
    /// Who started the run.
    pub owner: String,
    /// What the job does.
    pub kind: JobKind,
    /// Of a probe: the model.
    pub model: Option<String>,
    /// Why the job gave up.
    pub reason: DeadLetterReason,
    /// What has become of it.
    pub status: DeadLetterStatus,
    /// What went wrong last.
    pub error_code: String,
    /// The same in words.
    pub error_message: String,
    /// The same for what looks the same.
    pub fingerprint: String,
    /// The state from which the job gave up.
    pub original_state: JobState,
    /// The job and what it was asked, as they were.
    pub snapshot: Value,
    /// All its attempts, oldest first.
    pub attempts: Value,
    /// Notes for programs: an object.
    pub metadata: Value,
    /// When the job gave up.
    pub created_at: DateTime<Utc>,
    /// When it was closed.
    pub resolved_at: Option<DateTime<Utc>>,
    /// Who closed it.
    pub resolved_by: Option<String>,
    /// What that person noted.
    pub notes: Option<String>,
    /// When the job was let try again, if that is what closed it.
    pub redriven_at: Option<DateTime<Utc>>,
}

impl Listed for DeadLetter {
    const LIST: &'static str = "dead_letter";
    type Key = i64;
    fn key(&self) -> i64 {
        self.id
    }
}

/// Which dead letters; a field that is none narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Of this run.
    pub run_id: Option<Uuid>,
    /// For one of these reasons.
    pub reasons: Option<Vec<DeadLetterReason>>,
    /// In one of these statuses.
    pub statuses: Option<Vec<DeadLetterStatus>>,
    /// That look like this.
    pub fingerprint: Option<String>,
    /// Whose last error was this.
    pub error_code: Option<String>,
    /// Of this model.
    pub model: Option<String>,
    /// Of runs of this definition.
    pub definition_id: Option<Uuid>,
    /// Made at this time or later.
    pub created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// Of what remains, only those of this person's runs: all that it may see.
    pub visible_to: Option<String>,
}

/// Dead letters that look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookalikes {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: i64,
    /// The newest of them.
    pub example_id: i64,
    /// Its error.
    pub error_code: String,
    /// The same in words.
    pub example_message: String,
    /// When the first was made.
    pub oldest: DateTime<Utc>,
    /// When the last was made.
    pub newest: DateTime<Utc>,
}

/// What to redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Which dead letters.
    pub filter: DeadLetterFilter,
    /// How many of their jobs become due each minute; none: all at once.
    pub per_minute: Option<i32>,
    /// Tell what would happen, and change nothing.
    pub dry_run: bool,
}

/// What a redrive did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Dead letters that the filter names.
    pub matched: i64,
    /// Jobs that wait again.
    pub redriven: i64,
    /// The others, by what stands against them.
    pub skipped: BTreeMap<RedriveObstacle, i64>,
    /// The runs of those jobs.
    pub runs: BTreeSet<Uuid>,
    /// When the last of those jobs is due; none without jobs.
    pub finishes_at: Option<DateTime<Utc>>,
}

impl Redriven {
    /// Counts one dead letter more.
    pub fn add(&mut self, run: Uuid, outcome: Result<DateTime<Utc>, RedriveObstacle>) {
        self.matched += 1;
        match outcome {
            Ok(due) => {
                self.redriven += 1;
                self.runs.insert(run);
                self.finishes_at = self.finishes_at.max(Some(due));
            }
            Err(obstacle) => *self.skipped.entry(obstacle).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolution_is_a_status_and_none_is_pending() {
        for &resolution in Resolution::ALL {
            let status: DeadLetterStatus = resolution.as_str().parse().unwrap();
            assert_ne!(status, DeadLetterStatus::Pending);
        }
        assert_eq!(Resolution::ALL.len() + 1, DeadLetterStatus::ALL.len());
    }

    #[test]
    fn a_report_counts_each_entry_once() {
        let mut report = Redriven::default();
        let (early, late) =
            (DateTime::from_timestamp(1, 0).unwrap(), DateTime::from_timestamp(2, 0).unwrap());
        report.add(Uuid::nil(), Ok(late));
        report.add(Uuid::nil(), Ok(early));
        report.add(Uuid::max(), Err(RedriveObstacle::RunCancelled));
        assert_eq!((report.matched, report.redriven), (3, 2));
        assert_eq!(report.skipped, BTreeMap::from([(RedriveObstacle::RunCancelled, 1)]));
        assert_eq!(report.runs, BTreeSet::from([Uuid::nil()]));
        assert_eq!(report.finishes_at, Some(late));
    }
}
