//! What people do to runs and jobs that exist.

use std::sync::Arc;

use uuid::Uuid;

use super::access::{not_found, parse_id, require_writer};
use super::{Entity, Error, Result, Service};
use crate::domain::job::JobValidationError;
use crate::domain::run::Permission;
use crate::domain::validation::{ValidationErrors, shorten};
use crate::domain::view::{Job, Run};
use crate::domain::{CancelMode, JobKind, Requester, RunAction, RunPriority};
use crate::store::{self, JobChange, JobHead, Released, RunChange, RunHead};

impl Service {
    /// Lets no further job of a run start.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn pause_run(&self, requester: &Requester, id: &str) -> Result<Run> {
        self.control_run(requester, id, RunAction::Pause, RunChange::Pause).await
    }

    /// Lets the jobs of a paused run start again.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn resume_run(&self, requester: &Requester, id: &str) -> Result<Run> {
        self.control_run(requester, id, RunAction::Resume, RunChange::Resume).await
    }

    /// Cancels a run for good.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn cancel_run(&self, requester: &Requester, id: &str, mode: CancelMode) -> Result<Run> {
        self.control_run(requester, id, RunAction::Cancel, RunChange::Cancel(mode)).await
    }

    /// Changes a run's place in the queue.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn set_run_priority(
        &self,
        requester: &Requester,
        id: &str,
        priority: RunPriority,
    ) -> Result<Run> {
        let change = RunChange::SetPriority(priority.value());
        self.control_run(requester, id, RunAction::SetPriority, change).await
    }

    /// Makes the failed probes of a run wait again.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn retry_failed_jobs(&self, requester: &Requester, id: &str) -> Result<Run> {
        require_writer(requester)?;
        let run_id: Uuid = parse_id(Entity::Run, id)?;
        let action = RunAction::RetryFailed;
        let outcome = self
            .store
            .acting_for(requester)
            .retry_failed_jobs(run_id, self.config.numbers.retry_batch, allows(requester, action, id))
            .await;
        self.changed_run(requester, id, run_id, action, outcome).await
    }

    /// Has an analysis of a run computed, anew if there is one.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR.
    pub async fn start_analysis(&self, requester: &Requester, id: &str, kind: JobKind) -> Result<Run> {
        self.control_run(requester, id, RunAction::StartAnalysis, RunChange::StartAnalysis(kind)).await
    }

    /// Lets the probes of one model of a run start again that were held for their crashes.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, VALIDATION_ERROR for a model that the run does not have.
    pub async fn release_lane(&self, requester: &Requester, id: &str, model: &str) -> Result<Arc<Run>> {
        require_writer(requester)?;
        let run_id: Uuid = parse_id(Entity::Run, id)?;
        let (who, asked) = (requester.clone(), id.to_owned());
        let store = self.store.acting_for(requester);
        let outcome = store.release_lane(run_id, model, move |run| allow_owner(&who, run, &asked)).await;
        match outcome.map_err(|e| self.failed(e))?.ok_or_else(|| not_found(Entity::Run, id))?? {
            Released::NoSuchModel => {
                let message =
                    format!("{} is no model of this run: give one of the run's `models`.", shorten(model));
                return Err(ValidationErrors::one("modelId", message).into());
            }
            Released::Lane { was_held } => {
                tracing::info!(run_id = %run_id, model, was_held, by = requester.subject, "lane released");
            }
        }
        self.run(requester, id).await?.ok_or_else(|| not_found(Entity::Run, id))
    }

    async fn control_run(
        &self,
        requester: &Requester,
        id: &str,
        action: RunAction,
        change: RunChange,
    ) -> Result<Run> {
        require_writer(requester)?;
        let run_id: Uuid = parse_id(Entity::Run, id)?;
        let allow = allows(requester, action, id);
        let outcome = self.store.acting_for(requester).control_run(run_id, change, allow).await;
        self.changed_run(requester, id, run_id, action, outcome).await
    }

    /// The run as it is after `action`, or why it was not taken.
    async fn changed_run(
        &self,
        requester: &Requester,
        id: &str,
        run_id: Uuid,
        action: RunAction,
        outcome: store::Result<Option<Result<()>>>,
    ) -> Result<Run> {
        outcome.map_err(|e| self.failed(e))?.ok_or_else(|| not_found(Entity::Run, id))??;
        tracing::info!(run_id = %run_id, action = action.name(), by = requester.subject, "run changed");
        let changed = self.read_back(|| self.store.run(run_id)).await.map_err(|e| self.failed(e))?;
        changed.ok_or_else(|| not_found(Entity::Run, id))
    }

    /// Cancels a job that waits or runs.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, JOB_VALIDATION_ERROR.
    pub async fn cancel_job(&self, requester: &Requester, id: &str) -> Result<Job> {
        self.control_job(requester, id, JobChange::Cancel).await
    }

    /// Makes a failed job wait again.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, JOB_VALIDATION_ERROR.
    pub async fn retry_job(&self, requester: &Requester, id: &str) -> Result<Job> {
        self.control_job(requester, id, JobChange::Retry).await
    }

    async fn control_job(&self, requester: &Requester, id: &str, change: JobChange) -> Result<Job> {
        require_writer(requester)?;
        let job_id: i64 = parse_id(Entity::Job, id)?;
        let (who, asked) = (requester.clone(), id.to_owned());
        let outcome = self
            .store
            .acting_for(requester)
            .control_job(job_id, change, move |job| allow_job(&who, job, change, &asked))
            .await
            .map_err(|e| self.failed(e))?;
        outcome.ok_or_else(|| not_found(Entity::Job, id))??;
        tracing::info!(job_id, ?change, by = requester.subject, "job changed");
        let changed = self.read_back(|| self.store.job(job_id)).await.map_err(|e| self.failed(e))?;
        changed.ok_or_else(|| not_found(Entity::Job, id))
    }
}

/// Decides, with the run as it will then be, whether `who` may do this to it.
pub(super) fn allows(
    who: &Requester,
    action: RunAction,
    asked: &str,
) -> impl Fn(&RunHead) -> Result<()> + Send + Sync + use<> {
    let (who, asked) = (who.clone(), asked.to_owned());
    move |run| allow_run(&who, run, action, &asked)
}

/// Whether `who` may do this to the run as it is now.
fn allow_run(who: &Requester, run: &RunHead, action: RunAction, asked: &str) -> Result<()> {
    allow_owner(who, run, asked)?;
    run.status.allow(action)?;
    if run.is_out_of_budget && matches!(action, RunAction::Resume | RunAction::RetryFailed) {
        return Err(Error::Conflict(
            "The run's budget is used up, so nothing of it would start: raise it first by setRunBudget."
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether the run is `who`'s to control; another user's does not exist for them.
fn allow_owner(who: &Requester, run: &RunHead, asked: &str) -> Result<()> {
    if who.may_control(&run.created_by) { Ok(()) } else { Err(not_found(Entity::Run, asked)) }
}

/// Whether `who` may do this to the job as it is now.
fn allow_job(who: &Requester, job: &JobHead, change: JobChange, asked: &str) -> Result<()> {
    if !who.may_control(&job.run.created_by) {
        return Err(not_found(Entity::Job, asked));
    }
    match change {
        JobChange::Cancel => job.state.allow_cancel(job.id)?,
        JobChange::Retry => {
            job.state.allow_retry(job.id)?;
            // A probe goes back into its run, so the run must take retries; an analysis only reads it.
            let refused = job.run.status.permission(RunAction::RetryFailed) == Permission::Refused;
            if refused && !job.kind.is_analysis() {
                return Err(Error::from(JobValidationError::CannotRetryInRun {
                    id: job.id,
                    run: job.run.status,
                }));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobState, Role, RunStatus};

    fn who(subject: &str, role: Role) -> Requester {
        Requester { subject: subject.to_owned(), role, group: None, request_id: String::new() }
    }

    fn run(status: RunStatus) -> RunHead {
        RunHead { id: Uuid::nil(), status, created_by: "ada".to_owned(), is_out_of_budget: false }
    }

    fn job(state: JobState, kind: JobKind, status: RunStatus) -> JobHead {
        JobHead { id: 7, state, kind, run: run(status) }
    }

    fn code(result: Result<()>) -> &'static str {
        result.map_or_else(|e| e.code(), |()| "allowed")
    }

    #[test]
    fn another_users_run_is_not_found_whatever_its_state() {
        for &status in RunStatus::ALL {
            let run = run(status);
            let other = who("bob", Role::User);
            assert_eq!(code(allow_run(&other, &run, RunAction::Pause, "x")), "NOT_FOUND");
            let job = job(JobState::Failed, JobKind::ProbeScenario, status);
            assert_eq!(code(allow_job(&other, &job, JobChange::Retry, "7")), "NOT_FOUND");
        }
    }

    #[test]
    fn the_owner_and_an_admin_do_what_the_table_allows() {
        for requester in [who("ada", Role::User), who("root", Role::Admin)] {
            for &status in RunStatus::ALL {
                for &action in RunAction::ALL {
                    let expected = if status.allow(action).is_ok() { "allowed" } else { "RUN_STATE_ERROR" };
                    assert_eq!(code(allow_run(&requester, &run(status), action, "x")), expected);
                }
            }
        }
    }

    #[test]
    fn a_probe_is_retried_where_its_run_takes_retries_and_an_analysis_anywhere() {
        let ada = who("ada", Role::User);
        for &status in RunStatus::ALL {
            let takes = status.allow(RunAction::RetryFailed).is_ok();
            let probe = job(JobState::Failed, JobKind::ProbeScenario, status);
            let expected = if takes { "allowed" } else { "JOB_VALIDATION_ERROR" };
            assert_eq!(code(allow_job(&ada, &probe, JobChange::Retry, "7")), expected, "{status}");
            let analysis = job(JobState::Failed, JobKind::AnalyzeBasic, status);
            assert_eq!(code(allow_job(&ada, &analysis, JobChange::Retry, "7")), "allowed", "{status}");
        }
    }

    #[test]
    fn only_jobs_that_wait_or_run_are_cancelled_and_only_failed_ones_retried() {
        let ada = who("ada", Role::User);
        for &state in JobState::ALL {
            let job = job(state, JobKind::ProbeScenario, RunStatus::Running);
            let may = |change| allow_job(&ada, &job, change, "7").is_ok();
            assert_eq!(
                may(JobChange::Cancel),
                matches!(state, JobState::Pending | JobState::Active),
                "{state}"
            );
            assert_eq!(may(JobChange::Retry), state == JobState::Failed, "{state}");
        }
    }
}
