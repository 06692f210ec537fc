//! The rows of a run's export, a page at a time: each page is one short statement, whoever reads the answer.

use serde_json::Value;
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::JobState;
use crate::domain::export::{Cell, ExportRow};

/// How much a page holds at most; one row at least.
#[derive(Debug, Clone, Copy)]
pub struct ExportPage {
    /// Rows.
    pub rows: i64,
    /// Bytes of transcripts as they are stored, which may be compressed.
    pub bytes: i64,
}

/// A page: each row with its place, ascending.
pub type Placed = Vec<(i64, ExportRow)>;

impl Store {
    /// The lanes of a run's probes, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn probe_lanes(&self, run: Uuid) -> Result<Vec<i64>> {
        Ok(sqlx::query_scalar!(
            "select l.id from lane l where l.run_id = $1 and l.kind = 'probe:scenario' order by l.position, l.id",
            run
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The next transcripts of a lane after the place `after`, hot and archived alike.
    ///
    /// # Errors
    /// The database's.
    pub async fn export_transcripts(&self, lane: i64, after: i64, page: ExportPage) -> Result<Placed> {
        let rows = sqlx::query!(
            r#"
            with page as materialized (
                select t.seq, t.job_id,
                       coalesce(sum(pg_column_size(t.turns)) over (
                           order by t.seq rows between unbounded preceding and 1 preceding), 0) as before
                  from (
                    select t.seq, t.job_id, t.turns from any_transcript t
                     where t.lane_id = $1 and t.seq > $2 order by t.seq limit $3
                  ) as t
            )
            select p.seq as "seq!", p.job_id as "job_id!", s.key, s.dimensions::text as "dimensions!", l.model,
                   t.model_version, t.score, t.cost_usd::text as cost_usd, t.usage as "usage!", t.latency_ms,
                   t.created_at, t.turns::text as "turns!"
              from page p
             cross join lateral (
                select t.* from any_transcript t where t.lane_id = $1 and t.seq = p.seq limit 1
             ) as t
              join lane l on l.id = $1
              join scenario s on s.id = t.scenario_id
             where p.before < $4
             order by p.seq
            "#,
            lane,
            after,
            page.rows,
            page.bytes
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| {
                let mut row = vec![
                    Cell::Text(Some(r.job_id.to_string())),
                    Cell::Text(Some(r.key)),
                    Cell::Json(Some(r.dimensions)),
                    Cell::Text(r.model),
                    Cell::Text(r.model_version),
                    Cell::Integer(r.score.map(i64::from)),
                    Cell::Text(r.cost_usd),
                ];
                row.extend(tokens(Some(&r.usage)));
                row.extend([
                    Cell::Integer(r.latency_ms.map(i64::from)),
                    Cell::Time(r.created_at),
                    Cell::Json(Some(r.turns)),
                ]);
                (r.seq, row)
            })
            .collect())
    }

    /// The next probes of a lane after the job `after`, hot and archived alike, with what they scored.
    ///
    /// # Errors
    /// The database's.
    pub async fn export_scores(&self, lane: i64, after: i64, page: ExportPage) -> Result<Placed> {
        let rows = sqlx::query!(
            r#"
            with page as materialized (
                select j.id
                  from unnest(enum_range(null::job_state)) as s (state)
                 cross join lateral jobs_after($1, s.state, $2, $3) as j (id)
                 order by j.id
                 limit $3
            )
            select p.id as "id!", s.key, s.dimensions::text as "dimensions!", l.model,
                   case when j.state = 'pending' and not l.is_open then 'cancelled' else j.state::text end as "state!",
                   case when j.state = 'failed' then j.error_code end as error_code,
                   t.score as "score?", t.cost_usd::text as cost_usd, t.usage as "usage?",
                   t.latency_ms as "latency_ms?", j.finished_at
              from page p
             cross join lateral (select j.* from any_job j where j.lane_id = $1 and j.id = p.id limit 1) as j
              join lane l on l.id = $1
              join scenario s on s.id = j.scenario_id
              left join lateral (
                select t.* from any_transcript t where t.lane_id = $1 and t.job_id = p.id limit 1
              ) as t on true
             order by p.id
            "#,
            lane,
            after,
            page.rows
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                let state = r.state.parse::<JobState>()?;
                let mut row = vec![
                    Cell::Text(Some(r.id.to_string())),
                    Cell::Text(Some(r.key)),
                    Cell::Json(Some(r.dimensions)),
                    Cell::Text(r.model),
                    Cell::Text(Some(state.status().as_str().to_owned())),
                    Cell::Text(r.error_code),
                    Cell::Integer(r.score.map(i64::from)),
                    Cell::Text(r.cost_usd),
                ];
                row.extend(tokens(r.usage.as_ref()));
                row.extend([Cell::Integer(r.latency_ms.map(i64::from)), Cell::Time(r.finished_at)]);
                Ok((r.id, row))
            })
            .collect()
    }
}

/// Tokens in, out, of reasoning, and read from and written to the provider's cache.
fn tokens(usage: Option<&Value>) -> impl Iterator<Item = Cell> {
    let of = |part: &str| usage.and_then(|usage| usage.get(part)).and_then(Value::as_i64);
    let parts = ["input", "output", "reasoning", "cacheRead", "cacheWrite"].map(of);
    parts.into_iter().map(Cell::Integer)
}
