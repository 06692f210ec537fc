//! What takes too long, as people see it.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Error, Result, Service};
use crate::domain::page::{Page, PageRequest};
use crate::domain::staleness::{Place, StaleJob, StaleRun, StalenessFilter};
use crate::domain::{Requester, Role};

impl Service {
    /// The jobs that are near their threshold or beyond, of everybody, lane by lane, in each the oldest first.
    ///
    /// # Errors
    /// FORBIDDEN for a user, who sees its own runs only.
    pub async fn staleness(
        &self,
        requester: &Requester,
        filter: &StalenessFilter,
        page: &PageRequest<Place>,
    ) -> Result<Page<StaleJob>> {
        if requester.role == Role::User {
            return Err(Error::Forbidden(
                "Only an admin or a viewer may see this: it concerns the runs of everybody. A job's own waitingBecause \
                 says when it has waited for too long."
                    .to_owned(),
            ));
        }
        self.store.stale_jobs(filter, page, self.config.numbers.count_max).await.map_err(|e| self.failed(e))
    }

    /// Which of these runs are near their threshold or beyond.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn staleness_of_runs(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, StaleRun>> {
        self.store.staleness_of_runs(runs).await.map_err(|e| self.failed(e))
    }
}
