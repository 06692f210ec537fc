//! What a node reads of the jobs that it has claimed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::job::Claim;
use crate::domain::work::{RunContext, ScenarioWork, Work};
use crate::domain::{Consequence, ErrorCode, JobKind};

/// Lanes that are remembered; with more, all are forgotten and read again.
const LANES_MAX: usize = 1_024;

/// What a node has read of lanes and runs before. It never changes, so it is read once.
#[derive(Debug, Default)]
pub struct Contexts {
    lanes: HashMap<i64, LaneContext>,
    runs: HashMap<Uuid, Arc<RunContext>>,
}

#[derive(Debug)]
struct LaneContext {
    run_id: Uuid,
    kind: JobKind,
    model: Option<String>,
    pricing: Option<Value>,
}

impl Store {
    /// The payloads of those of these jobs that the node holds now, in no order, with what the jobs of a run share. What has
    /// ended or was taken away since it was claimed is left out: it must not be run again.
    ///
    /// # Errors
    /// The database's.
    pub async fn work(
        &self,
        node: Uuid,
        claims: &[Claim],
        contexts: &mut Contexts,
    ) -> Result<Vec<(Work, Arc<RunContext>)>> {
        let ids: Vec<i64> = claims.iter().map(|c| c.job_id).collect();
        let retried_once: Vec<String> = ErrorCode::ALL
            .into_iter()
            .filter(|c| c.consequence() == Consequence::RetryOnce)
            .map(|c| c.as_str().to_owned())
            .collect();
        if contexts.lanes.len() > LANES_MAX {
            *contexts = Contexts::default();
        }
        let lanes: Vec<i64> = contexts.lanes.keys().copied().collect();
        let runs: Vec<Uuid> = contexts.runs.keys().copied().collect();
        // What the jobs of a lane share comes with one of them, and before the others, unless it is known.
        let rows = sqlx::query!(
            r#"with held as materialized (
                    select j.id, j.lane_id, j.scenario_id, case when j.is_fresh then 1 else j.claims end as claims,
                           j.is_suspect, j.cancel_requested, j.failures, j.losses_alone, j.throttled_ms, j.epoch_claims
                      from job j
                     where j.id = any ($1)
                       and case when j.is_fresh
                                then j.id in (select t.job_id from claim c cross join lateral unnest(c.jobs) as t (job_id)
                                               where c.node_id = $3)
                                else j.state = 'active' and j.node_id = $3 end
               )
               select h.id as "id!", h.lane_id as "lane_id!", h.claims as "claims!", h.is_suspect as "is_suspect!",
                      h.cancel_requested as "cancel_requested!", h.failures as "failures!",
                      h.losses_alone as "losses_alone!", h.throttled_ms as "throttled_ms!",
                      s.key as "key?", s.prompt as "prompt?", s.dimensions as "dimensions?",
                      case when h.failures = 0 then 0 else
                          (select count(*) from past_attempt a
                            where a.job_id = h.id and a.number > h.epoch_claims and a.outcome = 'retried'
                              and a.error_code = any ($2)) end as "retried_once!",
                      c.run_id as "run_id?", c.kind as "kind?", c.model as "model?", c.pricing as "pricing?",
                      c.batch_id as "batch_id?", c.request_id as "request_id?",
                      c.definition_snapshot as "definition_snapshot?", c.params as "params?",
                      c.sample_seed as "sample_seed?"
                 from held h
                 left join scenario s on s.id = h.scenario_id
                 -- By arrays and keys: the planner knows no sizes here, and might compare all with all.
                 left join lateral (
                    select l.run_id, l.kind::text as kind, l.model, l.pricing, r.batch_id, r.request_id,
                           r.definition_snapshot, r.params, r.sample_seed
                      from lane l
                      left join lateral (
                        select r.* from run r where r.id = l.run_id and r.id <> all ($5) offset 0
                      ) as r on true
                     where l.id = h.lane_id
                       and h.id = any (array(
                        select min(f.id) from held f
                         where f.lane_id = any (array(select lane_id from held except select unnest($4::bigint[])))
                         group by f.lane_id))
                    offset 0
                 ) as c on true
                order by c.run_id is null"#,
            &ids,
            &retried_once,
            node,
            &lanes,
            &runs
        )
        .fetch_all(&self.pool)
        .await?;
        let mut works = Vec::with_capacity(rows.len());
        for r in rows {
            let scenario = match (r.key, r.prompt, r.dimensions) {
                (Some(key), Some(prompt), Some(dimensions)) => Some(ScenarioWork { key, prompt, dimensions }),
                _ => None,
            };
            if let (Some(run_id), Some(kind)) = (r.run_id, r.kind) {
                let lane = LaneContext { run_id, kind: kind.parse()?, model: r.model, pricing: r.pricing };
                contexts.lanes.insert(r.lane_id, lane);
                if let (Some(batch_id), Some(request_id), Some(definition), Some(params), Some(sample_seed)) =
                    (r.batch_id, r.request_id, r.definition_snapshot, r.params, r.sample_seed)
                {
                    let run = RunContext { run_id, batch_id, request_id, definition, params, sample_seed };
                    contexts.runs.insert(run_id, Arc::new(run));
                }
            }
            // A run that was removed meanwhile has neither.
            let Some(lane) = contexts.lanes.get(&r.lane_id) else { continue };
            let Some(run) = contexts.runs.get(&lane.run_id) else { continue };
            let work = Work {
                claim: Claim { job_id: r.id, number: r.claims },
                lane_id: r.lane_id,
                run_id: lane.run_id,
                kind: lane.kind,
                model: lane.model.clone(),
                pricing: lane.pricing.clone(),
                scenario,
                is_suspect: r.is_suspect,
                cancel_requested: r.cancel_requested,
                failures: r.failures,
                failures_retried_once: r.retried_once,
                losses_alone: r.losses_alone,
                throttled: Duration::from_millis(r.throttled_ms.unsigned_abs()),
            };
            works.push((work, Arc::clone(run)));
        }
        Ok(works)
    }
}
