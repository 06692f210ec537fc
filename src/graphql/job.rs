//! Jobs and their attempts.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};

use super::arguments::list_cost;
use super::connection::Connection;
use super::context::ContextExt;
use super::dead_letter::DeadLetter;
use super::definition::Scenario;
use super::enums::{AttemptOutcome, TaskStatus};
use super::history::{HistoryEntry, history_of};
use super::loaders::{AttemptsOf, DeadLettersOf, ScenarioId, WaitingOf};
use super::scalars::Money;
use crate::domain::history::HistoryOf;
use crate::domain::{JobState, view};

/// One unit of work of a run: one scenario put to one model, or an analysis.
#[derive(Clone)]
pub(super) struct Job(Arc<view::Job>);

impl From<view::Job> for Job {
    fn from(job: view::Job) -> Self {
        Self(Arc::new(job))
    }
}

/// One unit of work of a run: one scenario put to one model, or an analysis.
#[Object]
impl Job {
    /// Of this job.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it does: `probe:scenario`, `analyze:basic` or `analyze:deep`.
    #[graphql(name = "type")]
    async fn kind(&self) -> &str {
        self.0.kind.as_str()
    }

    /// 0 to 100, higher first.
    async fn priority(&self) -> i16 {
        self.0.priority
    }

    /// Its run.
    async fn run_id(&self) -> ID {
        self.0.run_id.into()
    }

    /// Of a probe: what the model is asked.
    async fn scenario(&self, ctx: &Context<'_>) -> Result<Option<Scenario>> {
        let Some(id) = self.0.scenario_id else { return Ok(None) };
        Ok(ctx.batches()?.load_one(ScenarioId(id)).await?.map(Scenario::from))
    }

    /// Of a probe: the model.
    async fn model_id(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    /// Where it stands.
    async fn status(&self) -> TaskStatus {
        self.0.state.status().into()
    }

    /// The number of the latest claim, 0 before the first.
    async fn attempt(&self) -> i32 {
        self.0.claims
    }

    /// How many counted failures the job may have.
    async fn max_attempts(&self, ctx: &Context<'_>) -> Result<i32> {
        Ok(ctx.service()?.max_attempts(self.0.kind))
    }

    /// Failures that count against it, since it was last retried by hand.
    async fn failures(&self) -> i16 {
        self.0.failures
    }

    /// Times that a worker or a node died under it; they do not count against it.
    async fn losses(&self) -> i16 {
        self.0.losses
    }

    /// Times that the provider asked to slow down; they do not count against it.
    async fn throttles(&self) -> i32 {
        self.0.throttles
    }

    /// It does not start before.
    async fn run_at(&self) -> DateTime<Utc> {
        self.0.run_at
    }

    /// When its latest attempt started; null before the first.
    async fn started_at(&self) -> Option<DateTime<Utc>> {
        self.0.claimed_at
    }

    /// When it completed, failed or was cancelled; null before.
    async fn completed_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }

    /// When it went into the archive, with its attempts and transcript, where it reads as before; null before.
    async fn archived_at(&self) -> Option<DateTime<Utc>> {
        self.0.archived_at
    }

    /// What went wrong last, also while it waits for its next attempt.
    async fn error(&self) -> Option<JobError> {
        self.0.error.clone().map(JobError::from)
    }

    /// Its attempts in order, among them the one that runs.
    async fn attempts(&self, ctx: &Context<'_>) -> Result<Vec<Attempt>> {
        let attempts = ctx.batches()?.load_one(AttemptsOf(self.0.id)).await?;
        Ok(attempts.unwrap_or_default().into_iter().map(Attempt::from).collect())
    }

    /// The times that it gave up, newest first.
    async fn dead_letters(&self, ctx: &Context<'_>) -> Result<Vec<DeadLetter>> {
        let entries = ctx.batches()?.load_one(DeadLettersOf(self.0.id)).await?;
        Ok(entries.unwrap_or_default().into_iter().map(DeadLetter::from).collect())
    }

    /// What happened to it, newest first: its attempts, and what was done to it, its lane and its run.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Connection<HistoryEntry>> {
        history_of(ctx, HistoryOf::Job(self.0.id), first, after.as_deref()).await
    }

    /// Why it is not running, in words; null unless it is pending.
    async fn waiting_because(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        if self.0.state != JobState::Pending {
            return Ok(None);
        }
        Ok(ctx.batches()?.load_one(WaitingOf(self.0.id)).await?.map(|reason| reason.to_string()))
    }
}

/// What went wrong.
#[derive(SimpleObject)]
pub(super) struct JobError {
    /// For programs, such as `network`, `rate_limit` or `content_filter`.
    code: String,
    /// For people.
    message: String,
    /// Whether another attempt may go better.
    retryable: bool,
}

impl From<view::JobError> for JobError {
    fn from(error: view::JobError) -> Self {
        Self { code: error.code, message: error.message, retryable: error.retryable }
    }
}

/// One claim of a job by a node, and how it ended.
#[derive(SimpleObject, Clone)]
pub(super) struct Attempt {
    /// 1, 2, 3 …; never used twice for a job.
    number: i32,
    /// The node that worked on it.
    node_id: Option<ID>,
    /// When the node took it.
    started_at: DateTime<Utc>,
    /// When the outcome was stored; null while it runs.
    ended_at: Option<DateTime<Utc>>,
    /// How it ended; null while it runs.
    outcome: Option<AttemptOutcome>,
    /// What went wrong, for programs.
    error_code: Option<String>,
    /// What went wrong, for people.
    error_message: Option<String>,
    /// The end of what the worker wrote to stderr; where none could be started, why.
    stderr_tail: Option<String>,
    /// What the crash looked like, where this job may be its cause: 16 hexadecimal digits and some words. Crashes of one
    /// origin have the same.
    fingerprint: Option<String>,
    /// What it cost although it did not complete, in US dollars: null when no price or no usage is known, and for a
    /// completed one, whose transcript has it.
    cost_usd: Option<Money>,
    /// How long it took, in milliseconds; null while it runs.
    duration_ms: Option<i64>,
}

impl From<view::Attempt> for Attempt {
    fn from(attempt: view::Attempt) -> Self {
        Self {
            number: attempt.number,
            node_id: Some(attempt.node_id.into()),
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            outcome: attempt.outcome.map(AttemptOutcome::from),
            error_code: attempt.error_code,
            error_message: attempt.error_message,
            stderr_tail: attempt.stderr_tail,
            fingerprint: attempt.fingerprint,
            cost_usd: attempt.cost_usd.map(Money),
            duration_ms: attempt.ended_at.map(|end| (end - attempt.started_at).num_milliseconds()),
        }
    }
}

/// A probe that completed or failed.
#[derive(SimpleObject)]
pub(super) struct TaskResult {
    /// The job.
    job_id: ID,
    /// What was asked.
    scenario_id: ID,
    /// Who was asked.
    model_id: String,
    /// COMPLETED or FAILED.
    status: TaskStatus,
    /// What went wrong, for people.
    error: Option<String>,
    /// When it ended.
    completed_at: Option<DateTime<Utc>>,
    /// How many claims it took.
    attempts: i32,
}

impl From<view::TaskResult> for TaskResult {
    fn from(task: view::TaskResult) -> Self {
        Self {
            job_id: task.job_id.into(),
            scenario_id: task.scenario_id.into(),
            model_id: task.model,
            status: task.state.status().into(),
            error: task.error,
            completed_at: task.finished_at,
            attempts: task.claims,
        }
    }
}
