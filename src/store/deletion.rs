//! What people delete: hidden at once, restorable for a while, then removed in small steps.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::control::{RunHead, lock_gate, lock_run};
use super::nodes::millis;
use super::transaction::in_transaction;
use super::{Result, Store};

/// A deletion that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Since when.
    pub at: DateTime<Utc>,
    /// Who deleted it.
    pub by: String,
}

/// What of a run is not over, although the run may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoingOn {
    /// Dead letters that somebody is to look into.
    pub open_dead_letters: i64,
    /// Jobs that wait or run, analyses included.
    pub jobs: i64,
}

/// A definition as a decision needs it, locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionHead {
    /// Whoever created it.
    pub created_by: String,
    /// Runs of it that are not final.
    pub open_runs: i64,
}

impl Store {
    /// Hides a run if `allow` agrees, which is told what of it is still going on. `None`: there is no such run.
    /// `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_run<E: Send + 'static>(
        &self,
        id: Uuid,
        by: &str,
        allow: impl Fn(&RunHead, GoingOn) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<Deleted, E>>> {
        let (allow, by) = (Arc::new(allow), Arc::<str>::from(by));
        in_transaction(self, move |c| {
            let (allow, by) = (Arc::clone(&allow), Arc::clone(&by));
            Box::pin(async move {
                // As every change of a run, so that none of them meets it half deleted.
                lock_gate(c).await?;
                sqlx::query!("select id from lane where run_id = $1 order by id for update", id)
                    .fetch_all(&mut *c)
                    .await?;
                let Some(run) = lock_run(c, id).await? else { return Ok(None) };
                let going_on = sqlx::query_as!(
                    GoingOn,
                    r#"select (select count(*) from dead_letter where run_id = $1 and status = 'pending')
                              as "open_dead_letters!",
                              (select coalesce(sum(pending + active), 0) from lane where run_id = $1) as "jobs!""#,
                    id
                )
                .fetch_one(&mut *c)
                .await?;
                if let Err(refused) = allow(&run, going_on) {
                    return Ok(Some(Err(refused)));
                }
                let at = sqlx::query_scalar!(
                    r#"update run set deleted_at = clock_timestamp(), deleted_by = $2, version = version + 1
                        where id = $1 returning deleted_at as "at!""#,
                    id,
                    &*by
                )
                .fetch_one(&mut *c)
                .await?;
                record(c, "deleteRun", "run", id).await?;
                Ok(Some(Ok(Deleted { at, by: by.to_string() })))
            })
        })
        .await
    }

    /// Shows a deleted run again; says whether there was one to restore, of which nothing has been removed yet.
    ///
    /// # Errors
    /// The database's.
    pub async fn restore_run(&self, id: Uuid) -> Result<bool> {
        in_transaction(self, move |c| {
            Box::pin(async move {
                let restored = sqlx::query!(
                    "update run set deleted_at = null, deleted_by = null, version = version + 1
                      where id = $1 and deleted_at is not null and removal_began_at is null",
                    id
                )
                .execute(&mut *c)
                .await?
                .rows_affected();
                if restored == 1 {
                    record(c, "restoreRun", "run", id).await?;
                }
                Ok(restored == 1)
            })
        })
        .await
    }

    /// Hides a definition if `allow` agrees. `None`: there is no such definition. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_definition<E: Send + 'static>(
        &self,
        id: Uuid,
        by: &str,
        allow: impl Fn(&DefinitionHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<Deleted, E>>> {
        let (allow, by) = (Arc::new(allow), Arc::<str>::from(by));
        in_transaction(self, move |c| {
            let (allow, by) = (Arc::clone(&allow), Arc::clone(&by));
            Box::pin(async move {
                // A run that is being started holds this row until it is there, and is counted by the next statement.
                let owner = sqlx::query_scalar!(
                    "select created_by from definition where id = $1 and deleted_at is null for update",
                    id
                )
                .fetch_optional(&mut *c)
                .await?;
                let Some(created_by) = owner else { return Ok(None) };
                let open_runs = sqlx::query_scalar!(
                    r#"select count(*) as "n!" from run where definition_id = $1 and completed_at is null"#,
                    id
                )
                .fetch_one(&mut *c)
                .await?;
                if let Err(refused) = allow(&DefinitionHead { created_by, open_runs }) {
                    return Ok(Some(Err(refused)));
                }
                let at = sqlx::query_scalar!(
                    r#"update definition set deleted_at = clock_timestamp(), deleted_by = $2
                        where id = $1 returning deleted_at as "at!""#,
                    id,
                    &*by
                )
                .fetch_one(&mut *c)
                .await?;
                record(c, "deleteDefinition", "definition", id).await?;
                Ok(Some(Ok(Deleted { at, by: by.to_string() })))
            })
        })
        .await
    }

    /// Removes up to `batch` rows of one run that was deleted `after` ago, at last the run; says how many. `None`:
    /// another node is at it.
    ///
    /// # Errors
    /// The database's.
    pub async fn remove_deleted_run(&self, after: Duration, batch: i32) -> Result<Option<i32>> {
        Ok(sqlx::query_scalar!(
            "select remove_deleted_run($1 * interval '1 millisecond', $2)",
            millis(after) as f64,
            batch
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Removes up to `batch` scenarios of one definition that was deleted `after` ago and that no run refers to, at
    /// last the definition; says how many rows. `None`: another node is at it.
    ///
    /// # Errors
    /// The database's.
    pub async fn remove_deleted_definition(&self, after: Duration, batch: i32) -> Result<Option<i32>> {
        Ok(sqlx::query_scalar!(
            "select remove_deleted_definition($1 * interval '1 millisecond', $2)",
            millis(after) as f64,
            batch
        )
        .fetch_one(&self.pool)
        .await?)
    }
}

/// Puts the act on record, in the name of whom the transaction acts for.
async fn record(c: &mut PgConnection, action: &str, kind: &str, id: Uuid) -> Result<()> {
    sqlx::query!(
        "select record_act($1, $2, $3::uuid::text, case when $2 = 'run' then $3::uuid end)",
        action,
        kind,
        id
    )
    .fetch_one(c)
    .await?;
    Ok(())
}
