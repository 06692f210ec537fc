//! The whole queue.

use super::access::require_admin;
use super::{Result, Service};
use crate::domain::view::QueueStatus;
use crate::domain::{Requester, request};

impl Service {
    /// The queue at a glance. Everybody may see it.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn queue_status(&self) -> Result<QueueStatus> {
        self.store.queue_status().await.map_err(|e| self.failed(e))
    }

    /// Lets no job of anybody start.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR for a reason that cannot be.
    pub async fn pause_queue(&self, requester: &Requester, reason: Option<String>) -> Result<QueueStatus> {
        require_admin(requester)?;
        let reason = request::pause_reason(reason, &self.limits)?;
        self.store
            .acting_for(requester)
            .pause_queue(&requester.subject, reason.as_deref())
            .await
            .map_err(|e| self.failed(e))?;
        tracing::warn!(by = requester.subject, reason, "queue paused");
        self.queue_status().await
    }

    /// Lets jobs start again.
    ///
    /// # Errors
    /// FORBIDDEN.
    pub async fn resume_queue(&self, requester: &Requester) -> Result<QueueStatus> {
        require_admin(requester)?;
        self.store.acting_for(requester).resume_queue().await.map_err(|e| self.failed(e))?;
        tracing::warn!(by = requester.subject, "queue resumed");
        self.queue_status().await
    }
}
