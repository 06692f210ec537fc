//! The whole queue at a glance.

use super::{Result, Store};
use crate::domain::view::{KindStatus, QueueStatus};

impl Store {
    /// Whether the queue is paused, what waits and runs now, and what ended in the last 24 hours, to the minute; one
    /// entry for every kind.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn queue_status(&self) -> Result<QueueStatus> {
        let rows = sqlx::query!(
            r#"
            with live as (
                select l.kind, sum(l.pending) as pending, sum(l.active) as active
                  from lane l
                 where l.is_live and l.id >= (select m.live_from from live_mark m) group by l.kind
            ), ended as (
                select m.kind, sum(m.completed) as completed, sum(m.failed) as failed
                  from queue_minute m
                 where m.minute > date_trunc('minute', clock_timestamp()) - interval '24 hours'
                 group by m.kind
            )
            select k.kind::text as "kind!", q.paused_at, q.paused_by, q.pause_reason,
                   coalesce(live.pending, 0) as "pending!", coalesce(live.active, 0) as "active!",
                   coalesce(ended.completed, 0) as "completed!", coalesce(ended.failed, 0) as "failed!"
              from unnest(enum_range(null::job_kind)) as k (kind)
             cross join queue_state q
              left join live on live.kind = k.kind
              left join ended on ended.kind = k.kind
             order by k.kind
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut status = QueueStatus {
            paused_at: None,
            paused_by: None,
            pause_reason: None,
            held_providers: self.rate_limits(None).await?.into_iter().filter(|l| l.hold.is_some()).collect(),
            kinds: Vec::with_capacity(rows.len()),
        };
        for row in rows {
            status.kinds.push(KindStatus {
                kind: row.kind.parse()?,
                pending: row.pending,
                active: row.active,
                completed: row.completed,
                failed: row.failed,
            });
            // The same in every row.
            (status.paused_at, status.paused_by, status.pause_reason) =
                (row.paused_at, row.paused_by, row.pause_reason);
        }
        Ok(status)
    }
}
