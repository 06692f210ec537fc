//! Nodes, for those who run the installation.

use uuid::Uuid;

use super::access::{not_found, parse_id, require_admin};
use super::{Entity, Error, Result, Service};
use crate::domain::job::JobValidationError;
use crate::domain::node::{Node, NodeState};
use crate::domain::view::Job;
use crate::domain::{JobState, Requester, Role};
use crate::store::{JobRelease, NodeChange};

impl Service {
    /// The registered nodes, oldest first.
    ///
    /// # Errors
    /// FORBIDDEN for a user.
    pub async fn nodes(&self, requester: &Requester) -> Result<Vec<Node>> {
        require_overseer(requester)?;
        self.store.nodes(None).await.map_err(|e| self.failed(e))
    }

    /// The node with this id.
    ///
    /// # Errors
    /// FORBIDDEN for a user.
    pub async fn node(&self, requester: &Requester, id: &str) -> Result<Option<Node>> {
        require_overseer(requester)?;
        let Ok(id) = id.parse::<Uuid>() else { return Ok(None) };
        Ok(self.store.nodes(Some(id)).await.map_err(|e| self.failed(e))?.pop())
    }

    /// Lets a node finish what it runs and claim nothing more.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND.
    pub async fn drain_node(&self, requester: &Requester, id: &str) -> Result<Node> {
        self.control_node(requester, id, NodeChange::Drain).await
    }

    /// Lets a drained node claim again.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, CONFLICT for one whose process ends.
    pub async fn undrain_node(&self, requester: &Requester, id: &str) -> Result<Node> {
        self.control_node(requester, id, NodeChange::Undrain).await
    }

    /// Gives every claim of a node back to the queue now.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND.
    pub async fn release_node(&self, requester: &Requester, id: &str) -> Result<Node> {
        self.control_node(requester, id, NodeChange::Release).await
    }

    async fn control_node(&self, requester: &Requester, id: &str, change: NodeChange) -> Result<Node> {
        require_admin(requester)?;
        let node: Uuid = parse_id(Entity::Node, id)?;
        let outcome = self
            .store
            .acting_for(requester)
            .control_node(node, change, move |state| allow(node, change, state))
            .await
            .map_err(|e| self.failed(e))?;
        outcome.ok_or_else(|| not_found(Entity::Node, id))??;
        tracing::warn!(node_id = %node, ?change, by = requester.subject, "node changed");
        self.node(requester, id).await?.ok_or_else(|| not_found(Entity::Node, id))
    }

    /// Takes the claim of a job that runs away from its node, and lets the job wait again; no attempt is burnt.
    /// `attempt`, if given, is the number of the claim that is meant.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, JOB_VALIDATION_ERROR unless it runs under that claim.
    pub async fn release_job(&self, requester: &Requester, id: &str, attempt: Option<i32>) -> Result<Job> {
        require_admin(requester)?;
        let job: i64 = parse_id(Entity::Job, id)?;
        let released = self
            .store
            .acting_for(requester)
            .release_job(job, attempt)
            .await
            .map_err(|e| self.failed(e))?
            .ok_or_else(|| not_found(Entity::Job, id))?;
        match (released, attempt) {
            (JobRelease::Released, _) => {}
            (JobRelease::NotHeld { state: JobState::Active, number }, Some(asked)) => {
                return Err(
                    JobValidationError::CannotReleaseAttempt { id: job, asked, current: number }.into()
                );
            }
            (JobRelease::NotHeld { state, .. }, _) => {
                return Err(JobValidationError::CannotRelease { id: job, status: state.status() }.into());
            }
        }
        tracing::warn!(job_id = job, by = requester.subject, "job released");
        self.job(requester, id).await?.ok_or_else(|| not_found(Entity::Job, id))
    }
}

/// Refuses those who see their own runs only.
///
/// # Errors
/// FORBIDDEN for a user.
pub(super) fn require_overseer(requester: &Requester) -> Result<()> {
    match requester.role {
        Role::Viewer | Role::Admin => Ok(()),
        Role::User => Err(Error::Forbidden(
            "Only a viewer or an admin may see this: it concerns the runs of everybody.".to_owned(),
        )),
    }
}

fn allow(node: Uuid, change: NodeChange, state: NodeState) -> Result<()> {
    if change == NodeChange::Undrain && state == NodeState::Stopping {
        return Err(Error::Conflict(format!(
            "The node {node} is stopping and ends when its jobs have: start another process instead."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_ends_cannot_be_taken_back_to_work() {
        for &state in NodeState::ALL {
            for change in [NodeChange::Drain, NodeChange::Undrain, NodeChange::Release] {
                let refused = change == NodeChange::Undrain && state == NodeState::Stopping;
                assert_eq!(allow(Uuid::nil(), change, state).is_err(), refused, "{change:?} {state}");
            }
        }
    }
}
