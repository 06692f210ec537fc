//! What people do to dead letters, and making one by hand.

use std::sync::Arc;

use serde_json::Value;
use sqlx::QueryBuilder;

use super::push_conditions;
use crate::domain::dead_letter::{DeadLetterStatus, Redrive, RedriveObstacle, Redriven, Resolution};
use crate::domain::{JobState, RunStatus};
use crate::store::audit::{job_facts, record_job_change};
use crate::store::crash::crash_point;
use crate::store::transaction::in_transaction;
use crate::store::{JobHead, Result, RunHead, Store};

/// A dead letter as a decision needs it, locked.
#[derive(Debug, Clone)]
pub struct EntryHead {
    /// What has become of it.
    pub status: DeadLetterStatus,
    /// Who started its run.
    pub owner: String,
    /// Who closed it.
    pub resolved_by: Option<String>,
}

/// How a dead letter is to be closed.
#[derive(Debug, Clone)]
pub struct NewResolution {
    /// What becomes of it.
    pub resolution: Resolution,
    /// For people.
    pub notes: Option<String>,
    /// For programs: an object, laid over what is there.
    pub metadata: Option<Value>,
}

impl Store {
    /// Closes a dead letter if `allow` agrees, which also says whether there is anything to change. The job is left
    /// alone. `None`: there is none. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn resolve_dead_letter<E: Send + 'static>(
        &self,
        id: i64,
        new: NewResolution,
        allow: impl Fn(&EntryHead) -> Result<bool, E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let (allow, new) = (Arc::new(allow), Arc::new(new));
        in_transaction(self, move |c| {
            let (allow, new) = (Arc::clone(&allow), Arc::clone(&new));
            Box::pin(async move {
                let Some(row) = sqlx::query!(
                    r#"select status::text as "status!", owner, resolved_by from dead_letter where id = $1 for update"#,
                    id
                )
                .fetch_optional(&mut *c)
                .await?
                else {
                    return Ok(None);
                };
                let entry =
                    EntryHead { status: row.status.parse()?, owner: row.owner, resolved_by: row.resolved_by };
                match allow(&entry) {
                    Err(refused) => return Ok(Some(Err(refused))),
                    Ok(false) => return Ok(Some(Ok(()))),
                    Ok(true) => {}
                }
                sqlx::query!(
                    "select resolve_dead_letter($1, $2::text::dlq_resolution_status, $3, $4)",
                    id,
                    new.resolution.as_str(),
                    new.notes,
                    new.metadata
                )
                .fetch_one(c)
                .await?;
                Ok(Some(Ok(())))
            })
        })
        .await
    }

    /// Makes the jobs of dead letters wait again, in batches of `batch`, each a transaction of its own: what is cut off
    /// in the middle has redriven some, and goes on with the rest when it is repeated.
    ///
    /// # Errors
    /// The database's; batches before it stay redriven.
    pub async fn redrive_dead_letters(&self, redrive: &Redrive, batch: i64) -> Result<Redriven> {
        // What gives up from now on is for the next time.
        let start = sqlx::query!(
            r#"select clock_timestamp() as "now!", coalesce(max(id), 0) as "last!" from dead_letter"#
        )
        .fetch_one(&self.pool)
        .await?;
        let mut done = Redriven::default();
        let mut after = 0;
        loop {
            let mut query = QueryBuilder::new("select d.id from dead_letter d where d.id > ");
            query.push_bind(after).push(" and d.id <= ").push_bind(start.last);
            push_conditions(&mut query, &redrive.filter);
            query.push(" order by d.id limit ").push_bind(batch);
            let ids: Vec<i64> = query.build_query_scalar().fetch_all(&self.pool).await?;
            let Some(&last) = ids.last() else { return Ok(done) };
            after = last;
            let (before, per_minute, dry_run) = (done.redriven, redrive.per_minute, redrive.dry_run);
            let rows = in_transaction(self, move |c| {
                let ids = ids.clone();
                Box::pin(async move {
                    let rows = sqlx::query!(
                        r#"select run_id as "run_id!", why, run_at
                             from redrive_dead_letters($1, $2, $3, $4, $5)"#,
                        &ids,
                        start.now,
                        before,
                        per_minute,
                        dry_run
                    )
                    .fetch_all(c)
                    .await?;
                    crash_point("redrive.before");
                    Ok(rows)
                })
            })
            .await?;
            crash_point("redrive.after");
            for row in rows {
                let outcome = match row.why {
                    Some(why) => Err(why.parse::<RedriveObstacle>()?),
                    None => Ok(row.run_at.unwrap_or(start.now)),
                };
                done.add(row.run_id, outcome);
            }
        }
    }

    /// Gives up a job that waits, if `allow` agrees. `None`: there is no such job. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn bury_job<E: Send + 'static>(
        &self,
        id: i64,
        why: &str,
        metadata: Value,
        allow: impl Fn(&JobHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let (allow, why) = (Arc::new(allow), why.to_owned());
        in_transaction(self, move |c| {
            let (allow, why, metadata) = (Arc::clone(&allow), why.clone(), metadata.clone());
            Box::pin(async move {
                sqlx::query!(
                    "select id from lane
                      where run_id = (select l.run_id from any_job j join lane l on l.id = j.lane_id where j.id = $1)
                      order by id for update",
                    id
                )
                .fetch_all(&mut *c)
                .await?;
                sqlx::query!("select id from job where id = $1 for update", id).fetch_optional(&mut *c).await?;
                let Some(row) = sqlx::query!(
                    r#"select j.state::text as "state!", l.is_open, l.kind::text as "kind!", r.id as run_id,
                              r.status::text as "status!", r.created_by
                         from any_job j join lane l on l.id = j.lane_id
                         join run r on r.id = l.run_id and r.deleted_at is null
                        where j.id = $1"#,
                    id
                )
                .fetch_optional(&mut *c)
                .await?
                else {
                    return Ok(None);
                };
                let state = match row.state.parse()? {
                    JobState::Pending if !row.is_open => JobState::Cancelled,
                    state => state,
                };
                let status: RunStatus = row.status.parse()?;
                // Nothing starts by this.
                let is_out_of_budget = false;
                let run =
                    RunHead { id: row.run_id, status, created_by: row.created_by, is_out_of_budget };
                let head = JobHead { id, state, kind: row.kind.parse()?, run };
                if let Err(refused) = allow(&head) {
                    return Ok(Some(Err(refused)));
                }
                let before = job_facts(c, id).await?;
                sqlx::query!(
                    "select bury_jobs(array[$1::bigint], 'manual_dlq', 'manual_dlq', $2, $3)",
                    id,
                    why,
                    metadata
                )
                .fetch_all(&mut *c)
                .await?;
                record_job_change(c, "deadLetterJob", id, head.run.id, before).await?;
                crash_point("bury.before");
                Ok(Some(Ok(())))
            })
        })
        .await
        .inspect(|_| crash_point("bury.after"))
    }
}
