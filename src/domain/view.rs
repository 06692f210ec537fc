//! What people see: definitions, runs, jobs and their results as the store reads them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::crash::LaneHold;
use super::guard::RunGuards;
use super::page::Listed;
use super::{AttemptOutcome, JobKind, JobState, RunStatus};

pub use super::queue::{KindStatus, QueueStatus};

/// What is asked. Immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its id.
    pub id: Uuid,
    /// Its place in the list.
    pub seq: i64,
    /// Its name, shared by all versions.
    pub name: String,
    /// 1, 2, 3 … within the name.
    pub version: i32,
    /// What was given when it was created, with defaults filled in.
    pub content: Value,
    /// How many scenarios it has.
    pub scenario_count: i32,
    /// The subject of whoever created it.
    pub created_by: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

impl Listed for Definition {
    const LIST: &'static str = "definition";
    type Key = i64;
    fn key(&self) -> i64 {
        self.seq
    }
}

/// One concrete prompt of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its id.
    pub id: i64,
    /// Unique in its definition.
    pub key: String,
    /// For people.
    pub name: String,
    /// What is put to the model.
    pub prompt: String,
    /// The values of the dimensions, by name.
    pub dimensions: Value,
}

impl Listed for Scenario {
    const LIST: &'static str = "scenario";
    type Key = String;
    fn key(&self) -> String {
        self.key.clone()
    }
}

/// Jobs by state; they add up to the total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: i64,
    /// Wait, also for a retry.
    pub pending: i64,
    /// Have been claimed.
    pub active: i64,
    /// Have a result.
    pub completed: i64,
    /// Gave up.
    pub failed: i64,
    /// Will not run.
    pub cancelled: i64,
}

impl Counts {
    /// How many are finished, whatever the outcome.
    #[must_use]
    pub const fn finished(&self) -> i64 {
        self.completed + self.failed + self.cancelled
    }

    /// The finished part in percent, 0 to 100; 100 of nothing.
    #[must_use]
    pub fn percent_complete(&self) -> f64 {
        if self.total == 0 { 100.0 } else { self.finished() as f64 * 100.0 / self.total as f64 }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            total: a.total + b.total,
            pending: a.pending + b.pending,
            active: a.active + b.active,
            completed: a.completed + b.completed,
            failed: a.failed + b.failed,
            cancelled: a.cancelled + b.cancelled,
        })
    }
}

/// One evaluation. Read in one statement: status, progress and revision fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// Its place in the list.
    pub seq: i64,
    /// Shared by everything that one request created.
    pub batch_id: Uuid,
    /// What it evaluates.
    pub definition_id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// An id of the client's own.
    pub experiment_id: Option<String>,
    /// `provider/name`, in the order given.
    pub models: Vec<String>,
    /// Where it stands.
    pub status: RunStatus,
    /// 0 to 100, higher first.
    pub priority: i16,
    /// Probes of it that run at once at most.
    pub max_concurrency: Option<i32>,
    /// How much of the definition's scenarios it takes.
    pub sample_percentage: i16,
    /// Decides which.
    pub sample_seed: i32,
    /// How the seed decides.
    pub sample_algorithm: String,
    /// The client's own notes.
    pub metadata: Option<Value>,
    /// The subject of whoever started it.
    pub created_by: String,
    /// When it was started by a person.
    pub created_at: DateTime<Utc>,
    /// When its first job was claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// When anything of it changed last.
    pub updated_at: DateTime<Utc>,
    /// Grows with every change that a client could see.
    pub revision: i64,
    /// US dollars; none while no price is known.
    pub cost_usd: Option<Decimal>,
    /// What it may cost and how often it may fail.
    pub guards: RunGuards,
    /// Its probes by model, in the order of [`Run::models`].
    pub progress_by_model: Vec<ModelProgress>,
}

impl Run {
    /// Its probes by state.
    #[must_use]
    pub fn progress(&self) -> Counts {
        self.progress_by_model.iter().map(|m| m.counts).sum()
    }
}

impl Listed for Run {
    const LIST: &'static str = "run";
    type Key = i64;
    fn key(&self) -> i64 {
        self.seq
    }
}

/// What a run evaluates, and how. It never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunContent {
    /// The definition's content when the run was started.
    pub definition_snapshot: Value,
    /// What every probe is called with.
    pub params: Value,
}

/// The probes of one model of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelProgress {
    /// `provider/name`
    pub model: String,
    /// Its probes by state.
    pub counts: Counts,
    /// What they cost.
    pub cost: super::prices::ModelCost,
    /// Why none of them starts, where too many crash.
    pub hold: Option<LaneHold>,
}

/// How fast a run is moving, from its latest finished probes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Probes that completed or failed …
    pub finished: i64,
    /// … within this many seconds, up to now.
    pub seconds: f64,
}

impl Pace {
    /// Seconds until `remaining` probes are finished at this pace, rounded up; none where nothing finished.
    #[must_use]
    pub fn seconds_for(&self, remaining: i64) -> Option<i64> {
        (self.finished > 0 && self.seconds > 0.0)
            .then(|| (remaining as f64 * self.seconds / self.finished as f64).ceil() as i64)
    }
}

/// A probe that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The job.
    pub job_id: i64,
    /// Its scenario.
    pub scenario_id: i64,
    /// Its model.
    pub model: String,
    /// Completed or failed.
    pub state: JobState,
    /// What went wrong.
    pub error: Option<String>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How many claims it took.
    pub claims: i32,
}

/// What went wrong with a job last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// A code of the worker protocol.
    pub code: String,
    /// In words.
    pub message: String,
    /// Whether another attempt may go better.
    pub retryable: bool,
}

/// One unit of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id; grows.
    pub id: i64,
    /// Its run.
    pub run_id: Uuid,
    /// Who started the run.
    pub run_created_by: String,
    /// What it does.
    pub kind: JobKind,
    /// Of a probe: the model.
    pub model: Option<String>,
    /// Of a probe: the scenario.
    pub scenario_id: Option<i64>,
    /// 0 to 100, higher first.
    pub priority: i16,
    /// Where it stands: a waiting job of a closed lane is cancelled.
    pub state: JobState,
    /// The number of the latest claim.
    pub claims: i32,
    /// Counted failures.
    pub failures: i16,
    /// Times that its worker or node died.
    pub losses: i16,
    /// Times that the provider asked to slow down.
    pub throttles: i32,
    /// Not claimed before.
    pub run_at: DateTime<Utc>,
    /// When it was claimed last.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What went wrong last.
    pub error: Option<JobError>,
    /// When it went into the archive; none while it is hot.
    pub archived_at: Option<DateTime<Utc>>,
}

impl Listed for Job {
    const LIST: &'static str = "job";
    type Key = i64;
    fn key(&self) -> i64 {
        self.id
    }
}

/// One claim of a job and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The job.
    pub job_id: i64,
    /// 1, 2, 3 …
    pub number: i32,
    /// The node that claimed it.
    pub node_id: Uuid,
    /// When the claim committed.
    pub started_at: DateTime<Utc>,
    /// When the outcome was stored; none while it runs.
    pub ended_at: Option<DateTime<Utc>>,
    /// None while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// What went wrong.
    pub error_code: Option<String>,
    /// The same in words.
    pub error_message: Option<String>,
    /// The end of what the worker wrote to stderr; where none could be started, why.
    pub stderr_tail: Option<String>,
    /// US dollars for what it used without completing; none while no price is known, and where it completed.
    pub cost_usd: Option<Decimal>,
    /// What the crash looked like, where the job may be its cause.
    pub fingerprint: Option<String>,
}

/// What a completed probe returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The job.
    pub job_id: i64,
    /// Its place in the list.
    pub seq: i64,
    /// The run.
    pub run_id: Uuid,
    /// The scenario.
    pub scenario_id: i64,
    /// The model as asked for.
    pub model: String,
    /// The model as the provider named it.
    pub model_version: Option<String>,
    /// Prompts and answers.
    pub turns: Value,
    /// Tokens.
    pub usage: Value,
    /// The first integer within the scoring range in the last answer.
    pub score: Option<i32>,
    /// US dollars.
    pub cost_usd: Option<Decimal>,
    /// The sum over the turns, in milliseconds.
    pub latency_ms: i32,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

impl Listed for Transcript {
    const LIST: &'static str = "transcript";
    type Key = i64;
    fn key(&self) -> i64 {
        self.seq
    }
}

/// An analysis of a run: the state of its job, and its latest result.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The job that computes it.
    pub job_id: i64,
    /// Which.
    pub kind: JobKind,
    /// Where the job stands.
    pub state: JobState,
    /// The latest result, also while a newer one is computed.
    pub result: Option<Value>,
    /// How much of the run the result rests on.
    pub coverage: Option<Value>,
    /// What to bear in mind about the result.
    pub warnings: Vec<String>,
    /// What went wrong last.
    pub error: Option<JobError>,
    /// When the result was computed or found to hold still.
    pub computed_at: Option<DateTime<Utc>>,
    /// When it was really computed, if it was found to hold still.
    pub cached_from: Option<DateTime<Utc>>,
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
