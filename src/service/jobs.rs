//! Jobs as people see them.

use std::collections::HashMap;

use super::{Result, Service, waiting};
use crate::domain::view::{Attempt, Job};
use crate::domain::waiting::Waiting;
use crate::domain::{JobKind, Requester};
use crate::store::WaitingFacts;

/// So many earlier jobs of a lane are counted before "more than" is said: counting a million for each job of a page
/// would cost more than the answer is worth.
const AHEAD_COUNT_MAX: i64 = 1_000;

impl Service {
    /// The job with this id; none also for a job of a run that this person may not see.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn job(&self, requester: &Requester, id: &str) -> Result<Option<Job>> {
        let Ok(id) = id.parse::<i64>() else { return Ok(None) };
        let job = self.store.job(id).await.map_err(|e| self.failed(e))?;
        Ok(job.filter(|job| requester.may_see(&job.run_created_by)))
    }

    /// The attempts of these jobs in order, among them the claims in progress.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn attempts(&self, jobs: &[i64]) -> Result<HashMap<i64, Vec<Attempt>>> {
        self.store.attempts(jobs).await.map_err(|e| self.failed(e))
    }

    /// Why those of these jobs wait that do.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn waiting_reasons(&self, jobs: &[i64]) -> Result<HashMap<i64, Waiting>> {
        let facts = self.store.waiting_facts(jobs, AHEAD_COUNT_MAX).await.map_err(|e| self.failed(e))?;
        let notes = self.store.stale_notes(jobs).await.map_err(|e| self.failed(e))?;
        let waiting = |facts: WaitingFacts| Waiting {
            note: notes.get(&facts.job_id).copied(),
            reason: waiting::reason(facts),
        };
        Ok(facts.into_iter().map(|facts| (facts.job_id, waiting(facts))).collect())
    }

    /// How many counted failures a job of this kind may have: it fails with the last.
    #[must_use]
    pub fn max_attempts(&self, kind: JobKind) -> i32 {
        i32::from(self.config.kind(kind).retry_limit) + 1
    }
}
