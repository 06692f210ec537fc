//! What a restored database may do a second time.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::transaction::in_transaction;
use super::{Result, Store};

/// A run that was under way when the backup was taken.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoredRun {
    /// The run.
    pub run_id: Uuid,
    /// What its owner called it.
    pub name: Option<String>,
    /// Its owner.
    pub created_by: String,
    /// Jobs that ran at the time of the backup: they run again.
    pub active: Vec<i64>,
    /// Jobs that waited then: they may have run since.
    pub waiting: i64,
    /// The latest change of the run that the backup holds.
    pub last_change_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Pauses the queue if this database has moved since a node last started on it. Returns whether it has.
    ///
    /// # Errors
    /// The database's.
    pub async fn settle_home(&self) -> Result<bool> {
        in_transaction(self, |c| {
            Box::pin(async move {
                Ok(sqlx::query_scalar!(r#"select settle_home() as "moved!""#).fetch_one(c).await?)
            })
        })
        .await
    }

    /// Pauses the queue and records what may run twice, as [`Store::settle_home`] does for a database that has moved.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin_after_restore(&self, note: &str) -> Result<()> {
        let note = note.to_owned();
        in_transaction(self, move |c| {
            let note = note.clone();
            Box::pin(async move {
                sqlx::query!("select pg_advisory_xact_lock(gate())").fetch_one(&mut *c).await?;
                sqlx::query!("select begin_after_restore($1)", note).fetch_one(c).await?;
                Ok(())
            })
        })
        .await
    }

    /// When the database was last found to be a restored one, and the runs that were under way in it. `None`: never.
    ///
    /// # Errors
    /// The database's.
    pub async fn restored(&self) -> Result<Option<(DateTime<Utc>, Vec<RestoredRun>)>> {
        let Some(last) = sqlx::query!(
            "select id, at from audit where subject_kind = 'queue' and subject_id = 'queue' and action = 'queue.restored'
              order by id desc limit 1"
        )
        .fetch_optional(&self.pool)
        .await?
        else {
            return Ok(None);
        };
        let rows = sqlx::query!(
            r#"select r.id, r.name, r.created_by,
                      array(select (jsonb_array_elements_text(a.after -> 'active'))::bigint) as "active!",
                      (a.after ->> 'waiting')::bigint as "waiting!",
                      (a.after ->> 'lastChangeAt')::timestamptz as last_change_at
                 from audit a
                 join run r on r.id = a.run_id
                where a.id > $1 and a.subject_kind = 'run' and a.action = 'run.restored'
                order by a.id"#,
            last.id
        )
        .fetch_all(&self.pool)
        .await?;
        let runs = rows
            .into_iter()
            .map(|r| RestoredRun {
                run_id: r.id,
                name: r.name,
                created_by: r.created_by,
                active: r.active,
                waiting: r.waiting,
                last_change_at: r.last_change_at,
            })
            .collect();
        Ok(Some((last.at, runs)))
    }
}
