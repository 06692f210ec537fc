//! Deleting runs and definitions: hidden at once, gone for good later.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::access::{not_found, parse_id, require_admin, require_writer};
use super::{Entity, Error, Result, Service};
use crate::domain::view::Run;
use crate::domain::{Requester, RunAction};
use crate::store::{DefinitionHead, Deleted, GoingOn, RunHead};

/// What was deleted, and until when that can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The run or the definition.
    pub id: Uuid,
    /// Since when it is hidden.
    pub deleted_at: DateTime<Utc>,
    /// Who deleted it.
    pub deleted_by: String,
    /// From then on it is removed for good.
    pub removed_after: DateTime<Utc>,
}

impl Service {
    /// Hides a run that has ended from every query, list and count.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR; CONFLICT while dead letters of it are open, or jobs of it go on.
    pub async fn delete_run(&self, requester: &Requester, id: &str) -> Result<Deletion> {
        require_writer(requester)?;
        let run: Uuid = parse_id(Entity::Run, id)?;
        let (who, asked) = (requester.clone(), id.to_owned());
        let outcome = self
            .store
            .acting_for(requester)
            .delete_run(run, &requester.subject, move |run, going_on| allow_run(&who, run, going_on, &asked))
            .await
            .map_err(|e| self.failed(e))?;
        let deleted = outcome.ok_or_else(|| not_found(Entity::Run, id))??;
        tracing::info!(run_id = %run, by = requester.subject, "run deleted");
        Ok(self.deletion(run, deleted))
    }

    /// Shows a deleted run again, unless it is gone for good.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND.
    pub async fn restore_run(&self, requester: &Requester, id: &str) -> Result<Arc<Run>> {
        require_admin(requester)?;
        let run: Uuid = parse_id(Entity::Run, id)?;
        let restored = self.store.acting_for(requester).restore_run(run).await.map_err(|e| self.failed(e))?;
        if !restored {
            return Err(not_found(Entity::Run, id));
        }
        tracing::info!(run_id = %run, by = requester.subject, "run restored");
        self.run(requester, id).await?.ok_or_else(|| not_found(Entity::Run, id))
    }

    /// Hides a definition from every query, list and count; no run starts from it any more.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND; CONFLICT while a run of it has not ended.
    pub async fn delete_definition(&self, requester: &Requester, id: &str) -> Result<Deletion> {
        require_writer(requester)?;
        let definition: Uuid = parse_id(Entity::Definition, id)?;
        let who = requester.clone();
        let outcome = self
            .store
            .acting_for(requester)
            .delete_definition(definition, &requester.subject, move |head| allow_definition(&who, head))
            .await
            .map_err(|e| self.failed(e))?;
        let deleted = outcome.ok_or_else(|| not_found(Entity::Definition, id))??;
        tracing::info!(definition_id = %definition, by = requester.subject, "definition deleted");
        Ok(self.deletion(definition, deleted))
    }

    fn deletion(&self, id: Uuid, deleted: Deleted) -> Deletion {
        Deletion {
            id,
            deleted_at: deleted.at,
            deleted_by: deleted.by,
            removed_after: deleted.at + self.config.archive.delete_after,
        }
    }
}

fn allow_run(who: &Requester, run: &RunHead, going_on: GoingOn, asked: &str) -> Result<()> {
    if !who.may_control(&run.created_by) {
        return Err(not_found(Entity::Run, asked));
    }
    run.status.allow(RunAction::Delete)?;
    if going_on.jobs > 0 {
        return Err(Error::Conflict(format!(
            "Cannot delete the run: {} job(s) of it, analyses included, still wait or run. Wait for them, or cancel \
             them first.",
            going_on.jobs
        )));
    }
    if going_on.open_dead_letters > 0 {
        return Err(Error::Conflict(format!(
            "Cannot delete the run: {} dead letter(s) of it are still to be looked into. Resolve or \
             redrive them first.",
            going_on.open_dead_letters
        )));
    }
    Ok(())
}

/// Everybody reads definitions, so another user's is no secret.
fn allow_definition(who: &Requester, definition: &DefinitionHead) -> Result<()> {
    if !who.may_control(&definition.created_by) {
        return Err(Error::Forbidden(
            "Only whoever created a definition, or an admin, may delete it.".to_owned(),
        ));
    }
    if definition.open_runs > 0 {
        return Err(Error::Conflict(format!(
            "Cannot delete the definition: {} run(s) of it have not ended. Cancel them or wait for them first.",
            definition.open_runs
        )));
    }
    Ok(())
}
