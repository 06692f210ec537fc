//! Runs and their progress.

use std::sync::Arc;

use async_graphql::{ComplexObject, Context, ID, Json, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::analysis::Analysis;
use super::arguments::{list_cost, page_request};
use super::connection::Connection;
use super::context::ContextExt;
use super::definition::{Definition, Scenario};
use super::enums::{RunPriority, RunStatus};
use super::filters::{self, JobFilter};
use super::history::{HistoryEntry, history_of};
use super::job::{Job, TaskResult};
use super::loaders::{AnalysesOf, ContentOf, DefinitionId, PaceOf, RecentTasksOf, StalenessOf};
use super::money::{FailureGuard, RunBudget};
use super::results::Transcript;
use super::scalars::Money;
use super::staleness::RunStaleness;
use crate::domain::history::HistoryOf;
use crate::domain::{self, request, view};
use crate::service;

/// One evaluation: a sample of a definition's scenarios, each put to each of the models.
#[derive(Clone)]
pub(super) struct Run(Arc<view::Run>);

impl From<Arc<view::Run>> for Run {
    fn from(run: Arc<view::Run>) -> Self {
        Self(run)
    }
}

impl From<view::Run> for Run {
    fn from(run: view::Run) -> Self {
        Arc::new(run).into()
    }
}

/// One evaluation: a sample of a definition's scenarios, each put to each of the models.
#[Object]
impl Run {
    /// Of this run.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Shared by everything that one request created; also the X-Batch-ID response header.
    async fn batch_id(&self) -> ID {
        self.0.batch_id.into()
    }

    /// The notes that `startRun` was given.
    async fn metadata(&self) -> Option<Json<Value>> {
        self.0.metadata.clone().map(Json)
    }

    /// For people.
    async fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// What it evaluates.
    async fn definition_id(&self) -> ID {
        self.0.definition_id.into()
    }

    /// What it evaluates.
    async fn definition(&self, ctx: &Context<'_>) -> Result<Option<Definition>> {
        let found = ctx.batches()?.load_one(DefinitionId(self.0.definition_id)).await?;
        Ok(found.map(Definition::from))
    }

    /// The definition's content when the run was started.
    async fn definition_snapshot(&self, ctx: &Context<'_>) -> Result<Json<Value>> {
        Ok(Json(content(ctx, self.0.id).await?.definition_snapshot))
    }

    /// The id of your own that `startRun` was given.
    async fn experiment_id(&self) -> Option<ID> {
        self.0.experiment_id.as_ref().map(ID::from)
    }

    /// `provider/name` each, in the order given.
    async fn models(&self) -> &[String] {
        &self.0.models
    }

    /// What every probe is called with.
    async fn params(&self, ctx: &Context<'_>) -> Result<Json<Value>> {
        Ok(Json(content(ctx, self.0.id).await?.params))
    }

    /// Where it stands.
    async fn status(&self) -> RunStatus {
        self.0.status.into()
    }

    /// How urgent it is.
    async fn priority(&self) -> RunPriority {
        domain::RunPriority::from_value(self.0.priority).into()
    }

    /// How many of its probes run at once at most; null without such a limit.
    async fn max_concurrency(&self) -> Option<i32> {
        self.0.max_concurrency
    }

    /// How much of the definition's scenarios it takes.
    async fn sample_percentage(&self) -> i16 {
        self.0.sample_percentage
    }

    /// What decides which scenarios it takes: the same seed takes the same ones again.
    async fn sample_seed(&self) -> i32 {
        self.0.sample_seed
    }

    /// How the seed decides.
    async fn sample_algorithm(&self) -> &str {
        &self.0.sample_algorithm
    }

    /// What happened to it, newest first: what was done to it and its jobs, and every attempt.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Connection<HistoryEntry>> {
        history_of(ctx, HistoryOf::Run(self.0.id), first, after.as_deref()).await
    }

    /// The scenarios that it took, by key.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn scenarios(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Connection<Scenario>> {
        let page = page_request::<view::Scenario>(ctx, first, after.as_deref())?;
        let scenarios = ctx.service()?.run_scenarios(self.0.id, &page).await?;
        Ok(Connection::new(scenarios, Scenario::from))
    }

    /// Its probes by status, exact at one instant.
    async fn progress(&self) -> RunProgress {
        RunProgress::of(&self.0)
    }

    /// The probes that completed or failed last, newest first.
    #[graphql(complexity = "list_cost(limit, child_complexity)")]
    async fn recent_tasks(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many: 0 to 100.", default = 5)] limit: i32,
    ) -> Result<Vec<TaskResult>> {
        let limit = request::recent_tasks_limit(limit).map_err(service::Error::from)?;
        let tasks = ctx.batches()?.load_one(RecentTasksOf { run: self.0.id, limit }).await?;
        Ok(tasks.unwrap_or_default().into_iter().map(TaskResult::from).collect())
    }

    /// Seconds until every probe is finished at the present pace; null when that cannot be known, or when the run is
    /// not moving.
    async fn estimated_time_remaining(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        if self.0.status != domain::RunStatus::Running {
            return Ok(None);
        }
        let progress = self.0.progress();
        let pace = ctx.batches()?.load_one(PaceOf(self.0.id)).await?;
        let seconds = pace.and_then(|p| p.seconds_for(progress.pending + progress.active));
        Ok(seconds.map(|s| i32::try_from(s).unwrap_or(i32::MAX)))
    }

    /// That it takes long, and what then follows; null while it does not, and while it is not under way. `staleness` lists
    /// the jobs that do.
    async fn staleness(&self, ctx: &Context<'_>) -> Result<Option<RunStaleness>> {
        let found = ctx.batches()?.load_one(StalenessOf(self.0.id)).await?;
        Ok(found.map(RunStaleness::from))
    }

    /// Its jobs, newest first: probes and analyses.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "Only jobs like this.")] filter: Option<JobFilter>,
    ) -> Result<Connection<Job>> {
        let page = page_request::<view::Job>(ctx, first, after.as_deref())?;
        let service = ctx.service()?;
        let filter = filter.map(|f| f.check(service.limits())).transpose()?.unwrap_or_default();
        let jobs = service.run_jobs(self.0.id, &filter, &page).await?;
        Ok(Connection::new(jobs, Job::from))
    }

    /// What its completed probes returned, newest first.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn transcripts(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "Only those of this model.")] model_id: Option<String>,
    ) -> Result<Connection<Transcript>> {
        let page = page_request::<view::Transcript>(ctx, first, after.as_deref())?;
        let service = ctx.service()?;
        filters::check_model_argument(model_id.as_deref(), service.limits())?;
        let transcripts = service.transcripts(self.0.id, model_id.as_deref(), &page).await?;
        Ok(Connection::new(transcripts, Transcript::from))
    }

    /// Its analyses, also those that still wait or run.
    async fn analyses(&self, ctx: &Context<'_>) -> Result<Vec<Analysis>> {
        let analyses = ctx.batches()?.load_one(AnalysesOf(self.0.id)).await?;
        analyses.unwrap_or_default().into_iter().map(Analysis::try_from).collect()
    }

    /// What its probes have cost so far, in US dollars; null while no price is known.
    async fn cost_usd(&self) -> Option<Money> {
        self.0.cost_usd.map(Money)
    }

    /// What it may cost; null without a budget.
    async fn budget(&self) -> Option<RunBudget> {
        RunBudget::of(&self.0)
    }

    /// How often its probes may fail; null without such a guard.
    async fn failure_guard(&self) -> Option<FailureGuard> {
        self.0.guards.failures.map(FailureGuard::from)
    }

    /// Why its own guard paused or stopped it: the budget, or too many failures; null while none has.
    async fn halted_because(&self) -> Option<&str> {
        self.0.guards.halt.as_ref().map(|halt| halt.reason.as_str())
    }

    /// Whoever started it.
    async fn created_by(&self) -> &str {
        &self.0.created_by
    }

    /// When `startRun` was called.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When its first job started; null before.
    async fn started_at(&self) -> Option<DateTime<Utc>> {
        self.0.started_at
    }

    /// When it ended; null before.
    async fn completed_at(&self) -> Option<DateTime<Utc>> {
        self.0.completed_at
    }

    /// When anything of it changed last.
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }

    /// Grows with every change of the run that a client could see; compare as a number.
    async fn revision(&self) -> String {
        self.0.revision.to_string()
    }
}

/// What a run evaluates, and how. One that was deleted since it was read may be gone.
async fn content(ctx: &Context<'_>, run: Uuid) -> Result<view::RunContent> {
    let found = ctx.batches()?.load_one(ContentOf(run)).await?;
    let gone = || service::Error::NotFound { what: service::Entity::Run, id: run.to_string() };
    Ok(found.ok_or_else(gone)?)
}

/// Probes by status: pending + active + completed + failed + cancelled = total, at any instant.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct RunProgress {
    /// All.
    total: i64,
    /// Wait, also for their next attempt.
    pending: i64,
    /// Have started.
    active: i64,
    /// Have a result.
    completed: i64,
    /// Gave up.
    failed: i64,
    /// Will not run.
    cancelled: i64,
    /// One entry a model, in the order of the run's models.
    by_model: Vec<ModelProgress>,
    #[graphql(skip)]
    counts: view::Counts,
}

#[ComplexObject]
impl RunProgress {
    /// What is completed, failed or cancelled, in percent of the total; 100 when there is nothing to do.
    async fn percent_complete(&self) -> f64 {
        self.counts.percent_complete()
    }
}

impl RunProgress {
    fn of(run: &view::Run) -> Self {
        let counts = run.progress();
        let view::Counts { total, pending, active, completed, failed, cancelled } = counts;
        let by_model = run.progress_by_model.iter().map(ModelProgress::from).collect();
        Self { total, pending, active, completed, failed, cancelled, by_model, counts }
    }
}

/// The probes of one model by status.
#[derive(SimpleObject)]
pub(super) struct ModelProgress {
    /// `provider/name`
    model_id: String,
    /// All.
    total: i64,
    /// Wait, also for their next attempt.
    pending: i64,
    /// Have started.
    active: i64,
    /// Have a result.
    completed: i64,
    /// Gave up.
    failed: i64,
    /// Will not run.
    cancelled: i64,
    /// What they have cost so far, in US dollars, failed attempts included; null while no price is known.
    cost_usd: Option<Money>,
    /// What their tokens cost, in US dollars per million, fixed when the run was started: an object of texts, or null where
    /// no price was known.
    pricing: Option<Json<Value>>,
    /// Why none of them starts: too many crashed in the same way. `releaseLane` lets them go on. Null while they may.
    held_because: Option<String>,
    /// Since when none of them starts.
    held_at: Option<DateTime<Utc>>,
}

impl From<&view::ModelProgress> for ModelProgress {
    fn from(progress: &view::ModelProgress) -> Self {
        let view::Counts { total, pending, active, completed, failed, cancelled } = progress.counts;
        let (held_because, held_at) =
            progress.hold.as_ref().map(|hold| (hold.reason.clone(), hold.since)).unzip();
        let model_id = progress.model.clone();
        let (cost_usd, pricing) = (progress.cost.usd.map(Money), progress.cost.pricing.clone().map(Json));
        Self {
            model_id,
            cost_usd,
            pricing,
            total,
            pending,
            active,
            completed,
            failed,
            cancelled,
            held_because,
            held_at,
        }
    }
}
