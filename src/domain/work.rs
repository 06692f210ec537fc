//! What a node needs to run a claimed job, and what it reports when the attempt has ended.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::crash::Fingerprint;
use super::job::{AttemptOutcome, Claim, JobKind};

/// A claimed job with its payload, save what all jobs of its run share.
#[derive(Debug, Clone)]
pub struct Work {
    /// The job and the number of the claim.
    pub claim: Claim,
    /// The id of what a node has taken at once, with this job in it; `None` when the node does not know it.
    pub taken_in: Option<i64>,
    /// Its lane.
    pub lane_id: i64,
    /// Its run.
    pub run_id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// The model of a probe.
    pub model: Option<String>,
    /// What the model's tokens cost, as the worker protocol has it.
    pub pricing: Option<Value>,
    /// The scenario of a probe.
    pub scenario: Option<Arc<ScenarioWork>>,
    /// Must not share a worker.
    pub is_suspect: bool,
    /// Somebody cancelled it between the claim and this look, if there was one.
    pub cancel_requested: bool,
    /// Counted failures of this epoch so far.
    pub failures: i16,
    /// Of these, the ones that are retried once only.
    pub failures_retried_once: i64,
    /// Losses while alone in this epoch so far.
    pub losses_alone: i16,
    /// Time waited for throttling in this epoch so far.
    pub throttled: Duration,
}

/// One concrete prompt.
#[derive(Debug, Clone)]
pub struct ScenarioWork {
    /// Unique in its definition.
    pub key: String,
    /// What the model is asked.
    pub prompt: String,
    /// The values that made the prompt, as the database has them: they are passed on unread.
    pub dimensions: Box<RawValue>,
}

/// What all jobs of a run share; it never changes.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The run.
    pub run_id: Uuid,
    /// Shared by everything that one request created.
    pub batch_id: Uuid,
    /// The `X-Request-ID` of the request that made the run.
    pub request_id: String,
    /// The definition's content when the run was made.
    pub definition: Value,
    /// What every probe is called with.
    pub params: Value,
    /// What the sample was drawn with; also the seed of the run's analyses.
    pub sample_seed: i32,
}

/// Why an attempt did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptError {
    /// An error code of the worker protocol, or one that the node sets.
    pub code: super::ErrorCode,
    /// For people.
    pub message: String,
    /// Whether another attempt could succeed.
    pub retryable: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    /// The claim that ends.
    pub claim: Claim,
    /// How.
    pub outcome: AttemptOutcome,
    /// How long the job waits if it goes back to the queue.
    pub delay: Duration,
    /// Why it did not complete.
    pub error: Option<AttemptError>,
    /// The end of what the worker wrote to stderr.
    pub stderr_tail: Option<String>,
    /// Tokens that were used, whatever became of it.
    pub usage: Option<Box<RawValue>>,
    /// What these cost in US dollars, as a decimal text; never negative. `None` when no price is known.
    pub cost_usd: Option<String>,
    /// What a completed job returned.
    pub result: Option<AttemptResult>,
    /// Whether a lost job must run alone from now on.
    pub suspect: bool,
    /// Whether the worker died while this was its only job.
    pub alone: bool,
    /// What the crash looked like, where this job may be its cause.
    pub fingerprint: Option<Fingerprint>,
    /// Whether the error bears on everybody who calls the model (`rate_limit`) or its provider (`auth`,
    /// `quota_exhausted`).
    pub holds: bool,
}

/// What a completed job returned, as the worker protocol has it.
#[derive(Debug, Clone)]
pub enum AttemptResult {
    /// A probe's conversation.
    Transcript(TranscriptResult),
    /// The whole of an analysis, or that the stored one holds.
    Analysis(Box<RawValue>),
}

impl AttemptResult {
    /// How large what is stored of it is about, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Transcript(transcript) => transcript.turns.get().len(),
            Self::Analysis(analysis) => analysis.get().len(),
        }
    }
}

/// What is stored of a probe's conversation, besides its usage and its cost.
#[derive(Debug, Clone)]
pub struct TranscriptResult {
    /// The array of its turns.
    pub turns: Box<RawValue>,
    /// The model's version as the provider reported it.
    pub model_version: Option<String>,
    /// The rating in the answer.
    pub score: Option<i32>,
    /// Milliseconds that the provider took over all turns.
    pub latency_ms: i32,
}

/// What is stored of an analysis that was computed before.
#[derive(Debug, Clone)]
pub struct PreviousAnalysis {
    /// What identified the records and options.
    pub input_hash: String,
    /// What identified the worker's code.
    pub code: String,
}

/// One scenario × model of a run, as an analysis reads it.
#[derive(Debug, Clone)]
pub struct AnalysisRecord {
    /// The scenario's key.
    pub scenario_key: String,
    /// The model.
    pub model_id: String,
    /// The values that made the prompt.
    pub dimensions: Value,
    /// The job's effective state.
    pub status: super::TaskStatus,
    /// Why it failed.
    pub error_code: Option<String>,
    /// The rating in the answer.
    pub score: Option<i32>,
    /// Tokens.
    pub usage: Option<Value>,
    /// US dollars, as a decimal text.
    pub cost_usd: Option<String>,
    /// Milliseconds.
    pub latency_ms: Option<i32>,
}
