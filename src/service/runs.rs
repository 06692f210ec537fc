//! Runs as people see them. What takes a [`Run`] trusts that its caller was shown it.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Result, Service};
use crate::domain::filter::{JobFilter, RunFilter};
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::{Analysis, Job, Pace, Run, RunContent, Scenario, TaskResult, Transcript};
use crate::domain::{Requester, Role};

impl Service {
    /// The run with this id; none also for a run that this person may not see.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn run(&self, requester: &Requester, id: &str) -> Result<Option<Arc<Run>>> {
        let Ok(id) = id.parse::<Uuid>() else { return Ok(None) };
        let run = self.runs_together.get(id).await.map_err(|e| self.failed(e))?;
        Ok(run.filter(|run| requester.may_see(&run.created_by)))
    }

    /// The runs that this person may see, newest first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn runs(
        &self,
        requester: &Requester,
        filter: RunFilter,
        page: &PageRequest<i64>,
    ) -> Result<Page<Run>> {
        let filter = visible(requester, filter);
        let count_max = self.config.numbers.count_max;
        self.store.runs(&filter, page, count_max).await.map_err(|e| self.failed(e))
    }

    /// What each of these runs evaluates, and how.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn run_contents(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, RunContent>> {
        self.store.run_contents(runs).await.map_err(|e| self.failed(e))
    }

    /// The scenarios that a run took, by key.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn run_scenarios(&self, run: Uuid, page: &PageRequest<String>) -> Result<Page<Scenario>> {
        self.store.run_scenarios(run, page).await.map_err(|e| self.failed(e))
    }

    /// The jobs of a run, newest first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn run_jobs(
        &self,
        run: Uuid,
        filter: &JobFilter,
        page: &PageRequest<i64>,
    ) -> Result<Page<Job>> {
        self.store.run_jobs(run, filter, page).await.map_err(|e| self.failed(e))
    }

    /// The transcripts of a run, newest first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn transcripts(
        &self,
        run: Uuid,
        model: Option<&str>,
        page: &PageRequest<i64>,
    ) -> Result<Page<Transcript>> {
        self.store.transcripts(run, model, page).await.map_err(|e| self.failed(e))
    }

    /// How fast those of these runs move that do.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn paces(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, Pace>> {
        self.store.paces(runs).await.map_err(|e| self.failed(e))
    }

    /// What ended last in each of these runs, newest first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn recent_tasks(&self, runs: &[Uuid], limit: i64) -> Result<HashMap<Uuid, Vec<TaskResult>>> {
        self.store.recent_tasks(runs, limit).await.map_err(|e| self.failed(e))
    }

    /// The analyses of these runs.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn analyses(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, Vec<Analysis>>> {
        self.store.analyses(runs).await.map_err(|e| self.failed(e))
    }
}

/// Narrows a filter to what this person may see.
fn visible(requester: &Requester, filter: RunFilter) -> RunFilter {
    match requester.role {
        Role::User => RunFilter { visible_to: Some(requester.subject.clone()), ..filter },
        Role::Viewer | Role::Admin => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_lists_its_own_runs_whatever_the_filter_says() {
        let asked = RunFilter { created_by: Some("bob".to_owned()), ..RunFilter::default() };
        for &role in Role::ALL {
            let requester =
                Requester { subject: "ada".to_owned(), role, group: None, request_id: String::new() };
            let seen = visible(&requester, asked.clone());
            assert_eq!(seen.visible_to.as_deref(), (role == Role::User).then_some("ada"), "{role}");
            assert_eq!(seen.created_by, asked.created_by);
        }
    }
}
