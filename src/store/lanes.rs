//! Lanes as operators see them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::lane::{Lane, LaneFilter};
use crate::domain::view::Counts;

const SELECT: &str = "
select l.id, l.run_id, r.name as run_name, r.created_by as owner, l.kind::text as kind, l.model, l.priority,
       l.max_concurrency, l.is_paused, l.held_at, l.hold_reason, not l.is_open as is_closed, l.total, l.pending, l.active, l.completed, l.failed,
       l.cancelled, l.cost_usd, greatest(l.updated_at, l.closed_at) as updated_at,
       (select w.job_id from waiting_jobs(l, 1) as w where l.is_open) as next_job
  from lane l join run r on r.id = l.run_id where true";

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    run_id: Uuid,
    run_name: Option<String>,
    owner: String,
    kind: String,
    model: Option<String>,
    priority: i16,
    max_concurrency: Option<i32>,
    is_paused: bool,
    held_at: Option<DateTime<Utc>>,
    hold_reason: Option<String>,
    is_closed: bool,
    total: i32,
    pending: i32,
    active: i32,
    completed: i32,
    failed: i32,
    cancelled: i32,
    cost_usd: Option<Decimal>,
    updated_at: DateTime<Utc>,
    next_job: Option<i64>,
}

impl TryFrom<Row> for Lane {
    type Error = super::Error;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            run_id: row.run_id,
            run_name: row.run_name,
            owner: row.owner,
            kind: row.kind.parse()?,
            model: row.model,
            priority: row.priority,
            max_concurrency: row.max_concurrency,
            is_paused: row.is_paused,
            held: row.held_at.zip(row.hold_reason),
            is_closed: row.is_closed,
            counts: Counts {
                total: row.total.into(),
                pending: row.pending.into(),
                active: row.active.into(),
                completed: row.completed.into(),
                failed: row.failed.into(),
                cancelled: row.cancelled.into(),
            },
            cost_usd: row.cost_usd,
            updated_at: row.updated_at,
            next_job: row.next_job,
        })
    }
}

impl Store {
    /// The most urgent of these lanes, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lanes(&self, filter: &LaneFilter, limit: i64) -> Result<Vec<Lane>> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        if let Some(run) = filter.run_id {
            query.push(" and l.run_id = ").push_bind(run);
        }
        if let Some(model) = &filter.model {
            query.push(" and l.model = ").push_bind(model.clone());
        }
        if !filter.finished_too {
            query.push(" and l.is_live");
        }
        query.push(" order by l.is_live desc, l.priority desc, l.id limit ").push_bind(limit);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Lane::try_from).collect()
    }

    /// The lane with this id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lane(&self, id: i64) -> Result<Option<Lane>> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        query.push(" and l.id = ").push_bind(id);
        let row: Option<Row> = query.build_query_as().fetch_optional(&self.pool).await?;
        row.map(Lane::try_from).transpose()
    }

    /// How many jobs of a lane have failed with each code, most first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lane_errors(&self, lane: i64) -> Result<Vec<(String, i64)>> {
        let rows = sqlx::query!(
            "select error_code, failed from lane_error where lane_id = $1 and failed > 0 order by failed desc, error_code",
            lane
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| (r.error_code, r.failed.into())).collect())
    }
}
