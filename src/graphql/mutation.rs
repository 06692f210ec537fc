//! What can be changed.

use async_graphql::{Context, ID, Object, Result};

use super::context::ContextExt;
use super::definition::Definition;
use super::deletion::Deletion;
use super::enums::{AnalysisKind, CancelMode, RunPriority};
use super::inputs::{CreateDefinitionInput, StartRunInput};
use super::job::Job;
use super::queue::QueueStatus;
use super::run::Run;

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

    /// Makes the failed probes of a run wait to be tried again; a finished run is reopened by it.
    async fn retry_failed_jobs(&self, ctx: &Context<'_>, run_id: ID) -> Result<Run> {
        Ok(ctx.service()?.retry_failed_jobs(ctx.requester()?, &run_id).await?.into())
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

    /// Shows a deleted run again, until it is removed for good; for admins.
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
}
