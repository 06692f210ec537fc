//! What happened, for those whom it concerns.

use super::nodes::require_overseer;
use super::{Result, Service};
use crate::domain::history::{HistoryEntry, HistoryKey, HistoryOf};
use crate::domain::page::{Page, PageRequest};
use crate::domain::{Requester, ValidationErrors};

/// Longer histories are not counted.
const COUNT_MAX: i64 = 10_000;

impl Service {
    /// The history of one run, job or node; of everything when none is named. None for what this person may not see.
    ///
    /// # Errors
    /// VALIDATION_ERROR when more than one is named; FORBIDDEN for a user who asks about a node or about everything.
    pub async fn history(
        &self,
        requester: &Requester,
        run: Option<&str>,
        job: Option<&str>,
        node: Option<&str>,
        page: &PageRequest<HistoryKey>,
    ) -> Result<Option<Page<HistoryEntry>>> {
        let of = match (run, job, node) {
            (Some(run), None, None) => self.run(requester, run).await?.map(|run| HistoryOf::Run(run.id)),
            (None, Some(job), None) => self.job(requester, job).await?.map(|job| HistoryOf::Job(job.id)),
            (None, None, Some(node)) => {
                require_overseer(requester)?;
                // A node that is gone has a history.
                node.parse().ok().map(HistoryOf::Node)
            }
            (None, None, None) => {
                require_overseer(requester)?;
                Some(HistoryOf::All)
            }
            _ => {
                let field = if run.is_some() { "runId" } else { "jobId" };
                let message = "cannot be given with another: give one of runId, jobId and nodeId, or none";
                return Err(ValidationErrors::one(field, message).into());
            }
        };
        match of {
            Some(of) => self.history_of(of, page).await.map(Some),
            None => Ok(None),
        }
    }

    /// The history of something that this person may see.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn history_of(
        &self,
        of: HistoryOf,
        page: &PageRequest<HistoryKey>,
    ) -> Result<Page<HistoryEntry>> {
        self.store.history(of, page, COUNT_MAX).await.map_err(|e| self.failed(e))
    }
}
