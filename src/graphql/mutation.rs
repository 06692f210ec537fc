//! What can be changed.

use async_graphql::{Context, ID, Json, Object, Result};
use serde_json::Value;

use super::context::ContextExt;
use super::dead_letter::{DeadLetter, DeadLetterFilter, DeadLetterResolution, RedriveReport};
use super::definition::Definition;
use super::deletion::Deletion;
use super::enums::{AnalysisKind, CancelMode, RunPriority};
use super::inputs::{CreateDefinitionInput, StartRunInput};
use super::job::Job;
use super::money::{ProviderRoles, Role, Spend, SpendPeriod, SpendScope};
use super::node::Node;
use super::queue::QueueStatus;
use super::rate_limit::RateLimit;
use super::run::Run;
use super::scalars::Money;
use crate::domain::dead_letter::Redrive;
use crate::domain::rate_limit::Ceilings;

/// The response header with the batch of what was created.
const BATCH_ID_HEADER: &str = "x-batch-id";

/// What can be changed.
pub struct Mutation;

/// What can be changed.
#[Object]
impl Mutation {
    /// Creates a definition with its scenarios; an existing name makes the next version.
    async fn create_definition(&self, ctx: &Context<'_>, input: CreateDefinitionInput) -> Result<Definition> {
        Ok(ctx.service()?.create_definition(ctx.requester()?, input.into()).await?.into())
    }

    /// Starts a run: one probe for each scenario of the sample and each model. All of them exist when this returns.
    async fn start_run(&self, ctx: &Context<'_>, input: StartRunInput) -> Result<Run> {
        let started = ctx.service()?.start_run(ctx.requester()?, ctx.request_id(), input.into()).await?;
        ctx.insert_http_header(BATCH_ID_HEADER, started.run.batch_id.to_string());
        Ok(started.run.into())
    }

    /// Lets no further job of a run start. Jobs that have started finish, and their results are kept.
    async fn pause_run(&self, ctx: &Context<'_>, id: ID) -> Result<Run> {
        Ok(ctx.service()?.pause_run(ctx.requester()?, &id).await?.into())
    }

    /// Lets the jobs of a paused run start again.
    async fn resume_run(&self, ctx: &Context<'_>, id: ID) -> Result<Run> {
        Ok(ctx.service()?.resume_run(ctx.requester()?, &id).await?.into())
    }

    /// Cancels a run for good: every waiting job is cancelled at once.
    async fn cancel_run(
        &self,
        ctx: &Context<'_>,
        id: ID,
        #[graphql(
            desc = "What happens to the jobs that have started. IMMEDIATE after GRACEFUL still stops them.",
            default_with = "CancelMode::Graceful"
        )]
        mode: CancelMode,
    ) -> Result<Run> {
        Ok(ctx.service()?.cancel_run(ctx.requester()?, &id, mode.into()).await?.into())
    }

    /// Changes how urgent a run is. Jobs that have started go on.
    async fn set_run_priority(&self, ctx: &Context<'_>, id: ID, priority: RunPriority) -> Result<Run> {
        Ok(ctx.service()?.set_run_priority(ctx.requester()?, &id, priority.into()).await?.into())
    }

    /// Changes what a run may cost; null lifts the budget. A run that its budget has paused goes on after `resumeRun`. With
    /// less than has been spent, its guard acts at once.
    async fn set_run_budget(
        &self,
        ctx: &Context<'_>,
        run_id: ID,
        #[graphql(desc = "US dollars for all of it, what has been spent included.")] budget_usd: Option<
            Money,
        >,
    ) -> Result<Run> {
        let usd = budget_usd.map(|money| money.0);
        Ok(ctx.service()?.set_run_budget(ctx.requester()?, &run_id, usd).await?.into())
    }

    /// Limits what may be spent in a day or a month, for admins; null lifts the limit. When it is reached, no further probe
    /// that it concerns starts until the next period, and `startRun` is refused.
    async fn set_spend_limit(
        &self,
        ctx: &Context<'_>,
        scope: SpendScope,
        #[graphql(desc = "The group's or the user's name; none for the installation.")] key: Option<String>,
        #[graphql(desc = "US dollars.")] usd: Option<Money>,
        period: SpendPeriod,
    ) -> Result<Spend> {
        let (service, usd) = (ctx.service()?, usd.map(|money| money.0));
        let set = service.set_spend_limit(ctx.requester()?, scope.into(), key, usd, period.into()).await?;
        Ok(set.into())
    }

    /// Says which roles may start runs with a provider, for admins; null lets all. Runs that have been started go on.
    async fn set_provider_roles(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What stands before the `/` of a model id.")] provider: String,
        #[graphql(desc = "An empty list lets nobody.")] roles: Option<Vec<Role>>,
    ) -> Result<ProviderRoles> {
        let roles = roles.map(|roles| roles.into_iter().map(Into::into).collect());
        Ok(ctx.service()?.set_provider_roles(ctx.requester()?, &provider, roles).await?.into())
    }

    /// Makes the failed probes of a run wait to be tried again; a finished run is reopened by it. Of many, some wait
    /// earlier than others; asking again is safe, and completes what was cut off.
    async fn retry_failed_jobs(&self, ctx: &Context<'_>, run_id: ID) -> Result<Run> {
        Ok(ctx.service()?.retry_failed_jobs(ctx.requester()?, &run_id).await?.into())
    }

    /// Lets the probes of one model of a run start again that are held because too many crashed in the same way. Crashes
    /// are counted anew from then on. Nothing changes where none are held.
    async fn release_lane(
        &self,
        ctx: &Context<'_>,
        run_id: ID,
        #[graphql(desc = "As in the run's `models`.")] model_id: String,
    ) -> Result<Run> {
        Ok(ctx.service()?.release_lane(ctx.requester()?, &run_id, &model_id).await?.into())
    }

    /// Has an analysis of a run computed, anew if there is one. Nothing changes while it waits or runs already.
    async fn start_analysis(&self, ctx: &Context<'_>, run_id: ID, kind: AnalysisKind) -> Result<Run> {
        Ok(ctx.service()?.start_analysis(ctx.requester()?, &run_id, kind.into()).await?.into())
    }

    /// Deletes a run that has ended: hidden at once, with its jobs and results, and removed for good after a while. For
    /// whoever started it, and for admins.
    async fn delete_run(&self, ctx: &Context<'_>, id: ID) -> Result<Deletion> {
        Ok(ctx.service()?.delete_run(ctx.requester()?, &id).await?.into())
    }

    /// Shows a deleted run again, until its removal begins; for admins.
    async fn restore_run(&self, ctx: &Context<'_>, id: ID) -> Result<Run> {
        Ok(ctx.service()?.restore_run(ctx.requester()?, &id).await?.into())
    }

    /// Deletes this version of a definition: hidden at once, and removed for good when no run of it is left. Its runs
    /// stay, with what they asked; none of them may still be open. For whoever created it, and for admins.
    async fn delete_definition(&self, ctx: &Context<'_>, id: ID) -> Result<Deletion> {
        Ok(ctx.service()?.delete_definition(ctx.requester()?, &id).await?.into())
    }

    /// Cancels a job that waits, or asks the worker of one that runs to stop.
    async fn cancel_job(&self, ctx: &Context<'_>, id: ID) -> Result<Job> {
        Ok(ctx.service()?.cancel_job(ctx.requester()?, &id).await?.into())
    }

    /// Makes a failed job wait to be tried again.
    async fn retry_job(&self, ctx: &Context<'_>, id: ID) -> Result<Job> {
        Ok(ctx.service()?.retry_job(ctx.requester()?, &id).await?.into())
    }

    /// Gives up a job that waits: it fails, and a dead letter keeps it.
    async fn dead_letter_job(
        &self,
        ctx: &Context<'_>,
        id: ID,
        #[graphql(desc = "Why, for those who find it.")] notes: Option<String>,
    ) -> Result<Job> {
        Ok(ctx.service()?.dead_letter_job(ctx.requester()?, &id, notes).await?.into())
    }

    /// Closes a dead letter; its job stays as it is. Closing it in the same way again changes nothing, in another way
    /// is a CONFLICT.
    async fn resolve_dead_letter(
        &self,
        ctx: &Context<'_>,
        id: ID,
        resolution: DeadLetterResolution,
        #[graphql(desc = "What you found and did.")] notes: Option<String>,
        #[graphql(desc = "An object of your own, laid over what the dead letter has.")] metadata: Option<
            Json<Value>,
        >,
    ) -> Result<DeadLetter> {
        let (service, metadata) = (ctx.service()?, metadata.map(|m| m.0));
        let entry =
            service.resolve_dead_letter(ctx.requester()?, &id, resolution.into(), notes, metadata).await?;
        Ok(entry.into())
    }

    /// Lets the jobs of open dead letters try again, as new epochs, and closes these dead letters. Finished runs are
    /// reopened; cancelled ones are skipped. What has been redriven is not redriven a second time.
    async fn redrive_dead_letters(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which; without a `status`, all that are PENDING.")] filter: DeadLetterFilter,
        #[graphql(desc = "How many of the jobs become due each minute; left out, all at once.")]
        rate_per_minute: Option<i32>,
        #[graphql(desc = "Tell what would happen, and change nothing.", default = false)] dry_run: bool,
    ) -> Result<RedriveReport> {
        let service = ctx.service()?;
        let filter = filter.check(service.limits())?;
        let redrive = Redrive { filter, per_minute: rate_per_minute, dry_run };
        Ok(RedriveReport::new(service.redrive_dead_letters(ctx.requester()?, redrive).await?, dry_run))
    }

    /// Lets no job of anybody start; for admins. Pausing a paused queue keeps the first pause.
    async fn pause_queue(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Shown to everybody whose jobs wait.")] reason: Option<String>,
    ) -> Result<QueueStatus> {
        Ok(ctx.service()?.pause_queue(ctx.requester()?, reason).await?.into())
    }

    /// Lets jobs start again; for admins.
    async fn resume_queue(&self, ctx: &Context<'_>) -> Result<QueueStatus> {
        Ok(ctx.service()?.resume_queue(ctx.requester()?).await?.into())
    }

    /// Sets what a provider or a model is asked to bear at most, by all nodes together; for admins. In force when this
    /// returns. What is left out or null has no ceiling.
    async fn set_limit(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A provider such as `openai`, or a model: `provider/name`.")] name: String,
        #[graphql(desc = "Jobs in flight at once.")] in_flight: Option<i32>,
        #[graphql(desc = "Calls within any 60 seconds.")] requests_per_minute: Option<i32>,
        #[graphql(desc = "Tokens, in and out, within any 60 seconds.")] tokens_per_minute: Option<i32>,
    ) -> Result<RateLimit> {
        let ceilings = Ceilings { in_flight, requests_per_minute, tokens_per_minute };
        Ok(ctx.service()?.set_limit(ctx.requester()?, &name, ceilings).await?.into())
    }

    /// Lets the jobs of a provider or a model go on that is held, because it refused the key, because the account is
    /// empty, or because it asked to wait; for admins. Mend the cause first, or the next refusal holds it again.
    async fn release_limit(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The provider or the model, as in `limits`.")] name: String,
    ) -> Result<RateLimit> {
        Ok(ctx.service()?.release_limit(ctx.requester()?, &name).await?.into())
    }

    /// Lets a node finish what it runs and claim nothing more, for admins. It stays up, keeps its lease, and its
    /// `/ready` says that it drains.
    async fn drain_node(&self, ctx: &Context<'_>, id: ID) -> Result<Node> {
        Ok(ctx.service()?.drain_node(ctx.requester()?, &id).await?.into())
    }

    /// Lets a drained node claim again; for admins.
    async fn undrain_node(&self, ctx: &Context<'_>, id: ID) -> Result<Node> {
        Ok(ctx.service()?.undrain_node(ctx.requester()?, &id).await?.into())
    }

    /// Gives every job of a node back to the queue at once, for admins; no attempt is burnt. A node that lives stops
    /// them, and what it has done for them is lost; one that cannot be reached may go on for a while, and its results
    /// change nothing. Drain it first, or it claims on.
    async fn release_node(&self, ctx: &Context<'_>, id: ID) -> Result<Node> {
        Ok(ctx.service()?.release_node(ctx.requester()?, &id).await?.into())
    }

    /// Takes a job that runs away from its node and lets it wait again, for admins; no attempt is burnt.
    async fn release_job(
        &self,
        ctx: &Context<'_>,
        id: ID,
        #[graphql(desc = "Only if this is the attempt that runs; left out, whichever it is.")]
        attempt: Option<i32>,
    ) -> Result<Job> {
        Ok(ctx.service()?.release_job(ctx.requester()?, &id, attempt).await?.into())
    }
}
