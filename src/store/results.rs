//! What jobs returned: transcripts and analyses.

use std::collections::HashMap;

use uuid::Uuid;

use super::jobs::job_error;
use super::{Result, Store};
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::{Analysis, Transcript};

impl Store {
    /// A page of a run's transcripts, newest first, of one model if one is given. The total comes from the lanes'
    /// counters.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn transcripts(
        &self,
        run_id: Uuid,
        model: Option<&str>,
        page: &PageRequest<i64>,
    ) -> Result<Page<Transcript>> {
        let items = sqlx::query_as!(
            Transcript,
            r#"
            with page as materialized (
                select t.seq, t.job_id, t.lane_id, l.run_id, l.model
                  from lane l
                 cross join lateral (
                    select t.seq, t.job_id, t.lane_id from any_transcript t
                     where t.lane_id = l.id and t.seq < $3
                     order by t.seq desc
                     limit $4
                 ) as t
                 where l.run_id = $1 and l.kind = 'probe:scenario' and ($2::text is null or l.model = $2)
                 order by t.seq desc
                 limit $4
            )
            select t.job_id as "job_id!", t.seq as "seq!", p.run_id as "run_id!", t.scenario_id as "scenario_id!",
                   p.model as "model!", t.model_version, t.turns as "turns!", t.usage as "usage!", t.score,
                   t.cost_usd, t.latency_ms as "latency_ms!", t.created_at as "created_at!"
              from page p
             cross join lateral (select t.* from any_transcript t where t.lane_id = p.lane_id and t.job_id = p.job_id limit 1) as t
             order by t.seq desc
            "#,
            run_id,
            model,
            page.after.unwrap_or(i64::MAX),
            page.limit + 1
        )
        .fetch_all(&self.pool)
        .await?;
        let total = if page.count {
            let total = sqlx::query_scalar!(
                r#"select coalesce(sum(completed - purged_completed), 0) as "total!" from lane
                    where run_id = $1 and kind = 'probe:scenario' and ($2::text is null or model = $2)"#,
                run_id,
                model
            )
            .fetch_one(&self.pool)
            .await?;
            Some(total)
        } else {
            None
        };
        Ok(Page::new(items, page, total))
    }

    /// The analyses of these runs, basic before deep.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn analyses(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, Vec<Analysis>>> {
        let rows = sqlx::query!(
            r#"
            select l.run_id, l.kind::text as "kind!", j.id,
                   case when j.state = 'pending' and not l.is_open then 'cancelled' else j.state::text end as "state!",
                   j.error_code, j.error_message, j.error_retryable,
                   a.result as "result?", a.coverage as "coverage?", a.warnings as "warnings?",
                   a.computed_at as "computed_at?", a.cached_from
              from lane l
              join job j on j.lane_id = l.id
              left join analysis a on a.run_id = l.run_id and a.kind = l.kind
             where l.run_id = any($1) and l.kind <> 'probe:scenario'
             order by l.run_id, l.kind
            "#,
            runs
        )
        .fetch_all(&self.pool)
        .await?;
        let mut analyses: HashMap<Uuid, Vec<Analysis>> = HashMap::new();
        for row in rows {
            analyses.entry(row.run_id).or_default().push(Analysis {
                job_id: row.id,
                kind: row.kind.parse()?,
                state: row.state.parse()?,
                result: row.result,
                coverage: row.coverage,
                warnings: row.warnings.unwrap_or_default(),
                error: job_error(row.error_code, row.error_message, row.error_retryable),
                computed_at: row.computed_at,
                cached_from: row.cached_from,
            });
        }
        Ok(analyses)
    }
}
