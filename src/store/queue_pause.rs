//! What an admin does to the whole queue. When one of these has returned, it is in force on every node.

use super::control::{lock_gate, wake};
use super::transaction::in_transaction;
use super::{Result, Store};

impl Store {
    /// Pauses every claim. Pausing a paused queue keeps the first pause.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause_queue(&self, by: &str, reason: Option<&str>) -> Result<()> {
        let (by, reason) = (by.to_owned(), reason.map(ToOwned::to_owned));
        in_transaction(self, move |c| {
            let (by, reason) = (by.clone(), reason.clone());
            Box::pin(async move {
                lock_gate(c).await?;
                sqlx::query!(
                    "with paused as (
                        update queue_state
                           set is_paused = true, paused_at = clock_timestamp(), paused_by = $1, pause_reason = $2
                         where not is_paused
                        returning pause_reason
                     )
                     select record_act('pauseQueue', 'queue', 'queue', null, jsonb_build_object('isPaused', false),
                                       jsonb_build_object('isPaused', true, 'reason', p.pause_reason))
                       from paused p",
                    by,
                    reason
                )
                .fetch_optional(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Lets claims happen again.
    ///
    /// # Errors
    /// The database's.
    pub async fn resume_queue(&self) -> Result<()> {
        in_transaction(self, |c| {
            Box::pin(async move {
                lock_gate(c).await?;
                sqlx::query!(
                    "with old as (
                        select q.paused_by, q.pause_reason from queue_state q where q.is_paused
                     ), resumed as (
                        update queue_state
                           set is_paused = false, paused_at = null, paused_by = null, pause_reason = null
                         where is_paused
                        returning id
                     )
                     select record_act('resumeQueue', 'queue', 'queue', null,
                                       jsonb_build_object('isPaused', true, 'pausedBy', o.paused_by,
                                                          'reason', o.pause_reason),
                                       jsonb_build_object('isPaused', false))
                       from old o cross join resumed"
                )
                .fetch_optional(&mut *c)
                .await?;
                wake(c).await
            })
        })
        .await
    }
}
