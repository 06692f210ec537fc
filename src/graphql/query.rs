//! What can be asked.

use async_graphql::{Context, ID, Object, Result};

use super::arguments::{list_cost, page_request};
use super::connection::Connection;
use super::context::ContextExt;
use super::dead_letter::{DeadLetter, DeadLetterConnection, DeadLetterFilter};
use super::definition::Definition;
use super::estimate::RunEstimate;
use super::filters::RunFilter;
use super::history::HistoryEntry;
use super::inputs::StartRunInput;
use super::job::Job;
use super::money::{ModelPrice, ProviderRoles, Spend, SpendPeriod, SpendScope};
use super::node::Node;
use super::queue::QueueStatus;
use super::rate_limit::RateLimit;
use super::run::Run;
use super::staleness::{StaleJob, StalenessFilter};
use crate::domain::{self, history, staleness, view};

/// What can be asked.
pub struct Query;

/// What can be asked.
#[Object]
impl Query {
    /// The definition with this id; null when there is none.
    async fn definition(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Definition>> {
        Ok(ctx.service()?.definition(&id).await?.map(Definition::from))
    }

    /// All definitions, newest first.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn definitions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "Only those whose name contains this text, in upper or lower case.")] search: Option<
            String,
        >,
    ) -> Result<Connection<Definition>> {
        let page = page_request::<view::Definition>(ctx, first, after.as_deref())?;
        let definitions = ctx.service()?.definitions(search, &page).await?;
        Ok(Connection::new(definitions, Definition::from))
    }

    /// The run with this id; null when there is none that you may see.
    async fn run(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Run>> {
        Ok(ctx.service()?.run(ctx.requester()?, &id).await?.map(Run::from))
    }

    /// The runs that you may see, newest first.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "Only runs like this.")] filter: Option<RunFilter>,
    ) -> Result<Connection<Run>> {
        let page = page_request::<view::Run>(ctx, first, after.as_deref())?;
        let service = ctx.service()?;
        let filter = filter.map(|f| f.check(service.limits())).transpose()?.unwrap_or_default();
        let runs = service.runs(ctx.requester()?, filter, &page).await?;
        Ok(Connection::new(runs, Run::from))
    }

    /// The job with this id; null when there is none that you may see.
    async fn job(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Job>> {
        Ok(ctx.service()?.job(ctx.requester()?, &id).await?.map(Job::from))
    }

    /// The dead letter with this id; null when there is none that you may see.
    async fn dead_letter(&self, ctx: &Context<'_>, id: ID) -> Result<Option<DeadLetter>> {
        Ok(ctx.service()?.dead_letter(ctx.requester()?, &id).await?.map(DeadLetter::from))
    }

    /// Jobs that gave up, newest first, of the runs that you may see.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn dead_letters(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only dead letters like this.")] filter: Option<DeadLetterFilter>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<DeadLetterConnection> {
        let page = page_request::<domain::dead_letter::DeadLetter>(ctx, first, after.as_deref())?;
        let service = ctx.service()?;
        let filter = filter.map(|f| f.check(service.limits())).transpose()?.unwrap_or_default();
        let entries = service.dead_letters(ctx.requester()?, &filter, &page).await?;
        Ok(DeadLetterConnection::new(entries, filter))
    }

    /// What models cost, for runs that are started from now on: a run keeps the prices of its start. The operator may
    /// replace the table. A model that no row fits has no price, and what it costs is null, never 0.
    async fn prices(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only the row that this model takes, if there is one: `provider/name`.")]
        model: Option<String>,
    ) -> Result<Vec<ModelPrice>> {
        let prices = ctx.service()?.prices(model.as_deref())?;
        Ok(prices.into_iter().map(ModelPrice::from).collect())
    }

    /// What a run would take, before anything of it is started: jobs, tokens, cost and duration. Mistakes in the input are
    /// those of `startRun`.
    async fn estimate_run(&self, ctx: &Context<'_>, input: StartRunInput) -> Result<RunEstimate> {
        Ok(ctx.service()?.estimate_run(ctx.requester()?, input.into()).await?.into())
    }

    /// What was spent in the present day or month. A user sees its own and its group's, null for others; viewers and admins
    /// see all.
    async fn spend(
        &self,
        ctx: &Context<'_>,
        scope: SpendScope,
        #[graphql(desc = "The group's or the user's name; left out, your own.")] key: Option<String>,
        #[graphql(default_with = "SpendPeriod::Month")] period: SpendPeriod,
    ) -> Result<Option<Spend>> {
        let found = ctx.service()?.spend(ctx.requester()?, scope.into(), key, period.into()).await?;
        Ok(found.map(Spend::from))
    }

    /// What may be spent, the limit of which least is left first. A user sees those that concern its runs.
    async fn spend_limits(&self, ctx: &Context<'_>) -> Result<Vec<Spend>> {
        Ok(ctx.service()?.spend_limits(ctx.requester()?).await?.into_iter().map(Spend::from).collect())
    }

    /// The providers that not every role may use.
    async fn provider_roles(&self, ctx: &Context<'_>) -> Result<Vec<ProviderRoles>> {
        ctx.requester()?;
        Ok(ctx.service()?.provider_roles().await?.into_iter().map(ProviderRoles::from).collect())
    }

    /// The whole queue at a glance.
    async fn queue_status(&self, ctx: &Context<'_>) -> Result<QueueStatus> {
        Ok(ctx.service()?.queue_status().await?.into())
    }

    /// The limits on providers and models, by name: what they allow, what of that is used, and what holds them.
    async fn limits(&self, ctx: &Context<'_>) -> Result<Vec<RateLimit>> {
        Ok(ctx.service()?.rate_limits().await?.into_iter().map(RateLimit::from).collect())
    }

    /// What happened, newest first: acts of people, changes by the system, and attempts, of one run, one job or one
    /// node; of everything, without attempts, when none is named. Null for what you may not see. Nodes and everything
    /// are for viewers and admins.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of this run and its jobs.")] run_id: Option<ID>,
        #[graphql(desc = "Of this job.")] job_id: Option<ID>,
        #[graphql(desc = "Of this node, also after it has gone; of its attempts, those that run.")]
        node_id: Option<ID>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Option<Connection<HistoryEntry>>> {
        let page = page_request::<history::HistoryEntry>(ctx, first, after.as_deref())?;
        let [run, job, node] = [&run_id, &job_id, &node_id].map(|id| id.as_ref().map(|id| id.as_str()));
        let found = ctx.service()?.history(ctx.requester()?, run, job, node, &page).await?;
        Ok(found.map(|page| Connection::new(page, HistoryEntry::from)))
    }

    /// The processes that execute jobs, oldest first; for viewers and admins.
    async fn nodes(&self, ctx: &Context<'_>) -> Result<Vec<Node>> {
        Ok(ctx.service()?.nodes(ctx.requester()?).await?.into_iter().map(Node::from).collect())
    }

    /// The node with this id, for viewers and admins; null when there is none any more.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        Ok(ctx.service()?.node(ctx.requester()?, &id).await?.map(Node::from))
    }

    /// The jobs that wait or run for long: near the threshold at which they count as stale, or beyond. Of everybody,
    /// so for admins and viewers; lane by lane, in each the oldest first.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn staleness(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "Only jobs like this.")] filter: Option<StalenessFilter>,
    ) -> Result<Connection<StaleJob>> {
        let page = page_request::<staleness::StaleJob>(ctx, first, after.as_deref())?;
        let service = ctx.service()?;
        let filter = filter.map(|f| f.check(service.limits())).transpose()?.unwrap_or_default();
        let jobs = service.staleness(ctx.requester()?, &filter, &page).await?;
        Ok(Connection::new(jobs, StaleJob::from))
    }
}
