//! Limits on providers and models, shared by all nodes.

use std::time::Duration;

use super::access::{not_found, require_admin};
use super::{Entity, Error, Result, Service};
use crate::domain::rate_limit::{Ceilings, RateLimit, check_limit_name};
use crate::domain::{Checker, Requester};
use crate::store::RunInsert;

impl Service {
    /// All limits by name, with what of them is used now. Everybody may see them: they say why jobs wait.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn rate_limits(&self) -> Result<Vec<RateLimit>> {
        self.store.rate_limits(None).await.map_err(|e| self.failed(e))
    }

    /// Sets the ceilings of a provider or a model, on every node at once.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR with every mistake.
    pub async fn set_limit(
        &self,
        requester: &Requester,
        name: &str,
        ceilings: Ceilings,
    ) -> Result<RateLimit> {
        require_admin(requester)?;
        let mut checker = Checker::new("", self.limits.mistakes_max);
        if let Err(message) = check_limit_name(name) {
            checker.within("name", |c| c.error(message));
        }
        for (field, value) in ceilings.named() {
            if let Some(value) = value
                && value < 1
            {
                let message = format!("is {value}: give at least 1, or null for no ceiling");
                checker.within(field, |c| c.error(message));
            }
        }
        checker.finish()?;
        self.store
            .acting_for(requester)
            .set_rate_limit(name, ceilings, &requester.subject)
            .await
            .map_err(|e| self.failed(e))?;
        tracing::warn!(limit = name, ?ceilings, by = requester.subject, "limit set");
        self.rate_limit(name).await
    }

    /// Lets the jobs of a provider or a model go on that held them: somebody has looked.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND.
    pub async fn release_limit(&self, requester: &Requester, name: &str) -> Result<RateLimit> {
        require_admin(requester)?;
        let released =
            self.store.acting_for(requester).release_rate_limit(name).await.map_err(|e| self.failed(e))?;
        let was_held = released.ok_or_else(|| not_found(Entity::Limit, name))?;
        if was_held {
            tracing::warn!(limit = name, by = requester.subject, "limit released");
        }
        self.rate_limit(name).await
    }

    async fn rate_limit(&self, name: &str) -> Result<RateLimit> {
        let found = self.store.rate_limits(Some(name)).await.map_err(|e| self.failed(e))?.pop();
        found.ok_or_else(|| not_found(Entity::Limit, name))
    }

    /// Turns a new run away while the queue is deeper than it may be: with so many jobs that wait.
    pub(super) fn admit(&self, run: &RunInsert, waiting: i64) -> Result<()> {
        let numbers = &self.config.numbers;
        if waiting < numbers.queue_waiting_jobs_max {
            return Ok(());
        }
        Err(Error::Unavailable {
            why: format!(
                "{waiting} jobs wait in the queue, which takes no new runs until some have been done"
            ),
            retry_after: Duration::from_millis(numbers.queue_full_retry_after_ms),
            internal: format!("the run {} was turned away", run.id),
        })
    }
}
