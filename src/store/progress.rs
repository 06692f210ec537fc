//! How fast runs move, and what ended last in them, for many runs at once.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Result, Store};
use crate::domain::view::{Pace, TaskResult};

/// The pace is that of so many probes that ended last …
const PACE_PROBES: i64 = 200;
/// … within this many seconds, so that a pause long ago does not slow it.
const PACE_WINDOW_S: f64 = 600.0;

impl Store {
    /// The pace of these runs, as far as they may move: a run that is not RUNNING, or any while the queue is paused, has
    /// none. Time counts from the first of the claims that ended, so that the first result of a run says something.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn paces(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, Pace>> {
        let rows = sqlx::query!(
            r#"
            with moving as materialized (
                select r.id, r.priority, r.max_concurrency, p.finished, p.seconds
                  from run r
                 cross join lateral (
                    select count(*) as finished,
                           extract(epoch from clock_timestamp() - min(t.claimed_at))::float8 as seconds
                      from (
                        select j.claimed_at
                          from (
                            select e.job_id, e.finished_at
                              from lane l cross join lateral last_ended(l.id, $2) as e
                             where l.run_id = r.id and l.kind = 'probe:scenario'
                               and e.finished_at > clock_timestamp() - $3 * interval '1 second'
                             order by e.finished_at desc
                             limit $2
                          ) as e
                          -- A job that was given up before its first claim says nothing of the pace.
                          join job j on j.id = e.job_id and j.claimed_at is not null
                      ) as t
                 ) as p
                 where r.id = any($1) and r.status = 'RUNNING'
                   and not (select q.is_paused from queue_state q)
                   and exists (select from lane l where l.run_id = r.id and l.is_live and l.held_at is null)
            )
            select m.id as "id!", m.finished as "finished!", m.seconds as "seconds!" from moving m where m.finished > 0
            union all
            -- Nothing of it has finished within the window: as its models were before, and no faster than the slowest of
            -- its limits lets them through. One probe every so many seconds.
            select m.id, 1, greatest(e.ms / 1000 / least(c.slots, m.max_concurrency), t.seconds / e.jobs)
              from moving m
             cross join lateral probe_capacity(m.priority) as c
             cross join lateral (
                select sum(s.mean_ms * (l.pending + l.active)) / sum(l.pending + l.active) as ms,
                       sum(l.pending + l.active) as jobs, bool_and(s.model is not null) as is_known
                  from lane l left join model_statistic s on s.model = l.model
                 where l.run_id = m.id and l.kind = 'probe:scenario' and l.is_live
             ) as e
             cross join lateral (
                select max(greatest(w.seconds / least(r.in_flight_max, floor(r.concurrency)),
                                    w.requests * 60 / r.requests_per_minute, w.tokens * 60 / r.tokens_per_minute)) as seconds
                  from rate_limit r
                 cross join lateral (
                    select sum(s.mean_ms * (l.pending + l.active)) / 1000 as seconds,
                           sum(l.requests * (l.pending + l.active))::float8 as requests,
                           sum(l.tokens * (l.pending + l.active))::float8 as tokens
                      from lane l join model_statistic s on s.model = l.model
                     where l.run_id = m.id and l.kind = 'probe:scenario' and l.is_live
                       and r.name in (l.model, provider_of(l.model))
                 ) as w
             ) as t
             where m.finished = 0 and e.is_known and c.slots > 0
            "#,
            runs,
            PACE_PROBES,
            PACE_WINDOW_S
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| (r.id, Pace { finished: r.finished, seconds: r.seconds })).collect())
    }

    /// The probes of these runs that completed or failed last, newest first, at most `limit` of each run.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn recent_tasks(&self, runs: &[Uuid], limit: i64) -> Result<HashMap<Uuid, Vec<TaskResult>>> {
        let rows = sqlx::query!(
            r#"
            select r.id as "run_id!", t.id as "id!", t.scenario_id as "scenario_id!", t.model as "model!",
                   t.state::text as "state!", t.error_message, t.finished_at, t.claims as "claims!"
              from unnest($1::uuid[]) as r (id)
             cross join lateral (
                select l.model, j.*
                  from lane l
                 cross join lateral (
                    select j.id, j.scenario_id, j.state, j.error_message, j.finished_at, j.claims
                      from last_ended(l.id, $2) as e join job j on j.id = e.job_id
                    union all
                    (select j.id, j.scenario_id, j.state, j.error_message, j.finished_at, j.claims
                       from archived_job j
                      where j.lane_id = l.id and j.state in ('completed', 'failed')
                      order by j.finished_at desc, j.id desc
                      limit $2)
                 ) as j
                 where l.run_id = r.id and l.kind = 'probe:scenario'
                 order by j.finished_at desc, j.id desc
                 limit $2
             ) as t
             order by t.finished_at desc, t.id desc
            "#,
            runs,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let mut tasks: HashMap<Uuid, Vec<TaskResult>> = HashMap::new();
        for row in rows {
            tasks.entry(row.run_id).or_default().push(TaskResult {
                job_id: row.id,
                scenario_id: row.scenario_id,
                model: row.model,
                state: row.state.parse()?,
                error: row.error_message,
                finished_at: row.finished_at,
                claims: row.claims,
            });
        }
        Ok(tasks)
    }
}
