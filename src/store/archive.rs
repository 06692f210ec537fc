//! The archive: finished jobs out of the way of the queue, and gone when their time is over.
//!
//! Every function that changes something is one short transaction, and does nothing while another node is at it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::nodes::millis;
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::JobState;

/// What could be archived now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archivable {
    /// Runs that ended long enough ago.
    pub runs: i64,
    /// Their finished probes that are still hot.
    pub jobs: i64,
    /// What these take, with attempts and transcripts, without indexes.
    pub bytes: i64,
}

/// A month of one outcome in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePartition {
    /// Its table.
    pub name: String,
    /// How its jobs ended.
    pub outcome: JobState,
    /// Its jobs were archived from then on …
    pub from: DateTime<Utc>,
    /// … until then.
    pub until: DateTime<Utc>,
    /// On disk, with indexes.
    pub bytes: i64,
}

/// What dropping a partition would take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionContent {
    /// Jobs.
    pub jobs: i64,
    /// Some of them belong to a run that is open again, or whose dead letters somebody looks into: it is kept.
    pub is_held: bool,
}

impl Store {
    /// Moves up to `batch` finished jobs of runs that ended `after` ago into the archive, and says how many. `None`:
    /// another node is at it.
    ///
    /// # Errors
    /// The database's.
    pub async fn archive_jobs(&self, after: Duration, batch: i32) -> Result<Option<i32>> {
        sqlx::query!("select make_archive_partitions(clock_timestamp())").fetch_one(&self.pool).await?;
        if self.actor.is_none() {
            return step(&self.pool, after, batch).await;
        }
        // In the actor's name.
        in_transaction(self, move |c| Box::pin(step(c, after, batch))).await
    }

    /// What [`Store::archive_jobs`] would move in all.
    ///
    /// # Errors
    /// The database's.
    pub async fn archivable(&self, after: Duration) -> Result<Archivable> {
        Ok(sqlx::query_as!(
            Archivable,
            r#"
            select count(distinct a.run_id) as "runs!", count(*) as "jobs!",
                   coalesce(sum(pg_column_size(j) + coalesce(pg_column_size(t), 0) + tried.bytes), 0)::bigint as "bytes!"
              from archivable_lanes($1 * interval '1 millisecond') a
              join job j on j.lane_id = a.id and j.state in ('completed', 'failed', 'cancelled')
              left join transcript t on t.lane_id = a.id and t.job_id = j.id
             cross join lateral (
                select coalesce(sum(pg_column_size(x)), 0) as bytes from past_attempt x where x.job_id = j.id
             ) as tried
            "#,
            millis(after) as f64
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// The partitions all of whose jobs were archived more than so many days ago, the oldest first; 0 days keep an
    /// outcome for ever.
    ///
    /// # Errors
    /// The database's.
    pub async fn expired_partitions(
        &self,
        outcomes: &[JobState],
        keep_days: &[u32],
    ) -> Result<Vec<ArchivePartition>> {
        let outcomes: Vec<String> = outcomes.iter().map(|o| o.as_str().to_owned()).collect();
        let days: Vec<i32> = keep_days.iter().map(|&d| i32::try_from(d).unwrap_or(i32::MAX)).collect();
        let rows = sqlx::query!(
            r#"
            select p.partition as "name!", p.outcome::text as "outcome!", p.from_at as "from!",
                   p.until_at as "until!", p.bytes as "bytes!"
              from archive_partitions() p
              join unnest($1::text[], $2::int[]) as k (outcome, days) on k.outcome = p.outcome::text
             where k.days > 0 and p.until_at <= clock_timestamp() - k.days * interval '1 day'
             order by p.until_at, p.outcome
            "#,
            &outcomes,
            &days
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                Ok(ArchivePartition {
                    name: r.name,
                    outcome: r.outcome.parse()?,
                    from: r.from,
                    until: r.until,
                    bytes: r.bytes,
                })
            })
            .collect()
    }

    /// What dropping a partition would take away. Reads it whole.
    ///
    /// # Errors
    /// The database's.
    pub async fn partition_content(&self, partition: &ArchivePartition) -> Result<PartitionContent> {
        Ok(sqlx::query_as!(
            PartitionContent,
            r#"
            with lane_jobs as materialized (
                select j.lane_id, count(*) as n
                  from archived_job j
                 where j.state = $1::text::job_state and j.archived_at >= $2 and j.archived_at < $3
                 group by j.lane_id
            )
            select coalesce(sum(n), 0)::bigint as "jobs!", purge_is_held(array_agg(lane_id)) as "is_held!" from lane_jobs
            "#,
            partition.outcome.as_str(),
            partition.from,
            partition.until
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Drops a partition of the archive and says how many jobs went with it. `None`: another node is at it, or the
    /// partition is held (see [`PartitionContent::is_held`]).
    ///
    /// # Errors
    /// The database's; [`super::Error::Unavailable`] when readers do not let go of it in time.
    pub async fn purge_partition(&self, name: &str) -> Result<Option<i64>> {
        let name = name.to_owned();
        in_transaction(self, move |c| {
            let name = name.clone();
            Box::pin(async move {
                Ok(sqlx::query_scalar!("select purge_partition($1)", name).fetch_one(c).await?)
            })
        })
        .await
    }
}

async fn step(db: impl PgExecutor<'_>, after: Duration, batch: i32) -> Result<Option<i32>> {
    Ok(sqlx::query_scalar!(
        "select archive_jobs($1 * interval '1 millisecond', $2)",
        millis(after) as f64,
        batch
    )
    .fetch_one(db)
    .await?)
}
