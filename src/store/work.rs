//! What a node reads of the jobs that it has claimed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use super::queue::FirstClaim;
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

/// What the jobs of a lane share, and with the first lane of a run that is read what they share with all of the run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SharedWork {
    lane_id: i64,
    run_id: Uuid,
    #[serde(deserialize_with = "from_text")]
    kind: JobKind,
    model: Option<String>,
    pricing: Option<Value>,
    batch_id: Option<Uuid>,
    request_id: Option<String>,
    definition_snapshot: Option<Value>,
    params: Option<Value>,
    sample_seed: Option<i32>,
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobKind, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
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
        let rows = sqlx::query!(
            r#"select j.id as "id!", j.lane_id as "lane_id!", case when j.is_fresh then 1 else j.claims end as "claims!",
                      j.is_suspect as "is_suspect!", j.cancel_requested as "cancel_requested!",
                      j.failures as "failures!", j.losses_alone as "losses_alone!", j.throttled_ms as "throttled_ms!",
                      s.key as "key?", s.prompt as "prompt?", s.dimensions as "dimensions?: Json<Box<RawValue>>",
                      case when j.failures = 0 then 0 else
                          (select count(*) from past_attempt a
                            where a.job_id = j.id and a.number > j.epoch_claims and a.outcome = 'retried'
                              and a.error_code = any ($2)) end as "retried_once!"
                 from job j
                 left join scenario s on s.id = j.scenario_id
                where j.id = any ($1)
                  and case when j.is_fresh
                           then j.id in (select t.job_id from claim c cross join lateral unnest(c.jobs) as t (job_id)
                                          where c.node_id = $3)
                           else j.state = 'active' and j.node_id = $3 end"#,
            &ids,
            &retried_once,
            node
        )
        .fetch_all(&self.pool)
        .await?;
        self.learn(rows.iter().map(|r| r.lane_id), contexts).await?;
        let work = rows.into_iter().filter_map(|r| {
            let scenario = match (r.key, r.prompt, r.dimensions) {
                (Some(key), Some(prompt), Some(Json(dimensions))) => {
                    Some(Arc::new(ScenarioWork { key, prompt, dimensions }))
                }
                _ => None,
            };
            let (work, context) =
                contexts.work(Claim { job_id: r.id, number: r.claims }, r.lane_id, scenario)?;
            let work = Work {
                is_suspect: r.is_suspect,
                cancel_requested: r.cancel_requested,
                failures: r.failures,
                failures_retried_once: r.retried_once,
                losses_alone: r.losses_alone,
                throttled: Duration::from_millis(r.throttled_ms.unsigned_abs()),
                ..work
            };
            Some((work, context))
        });
        Ok(work.collect())
    }

    /// Reads what the jobs that came with their payloads share, unless it is known: for [`Contexts::first_work`].
    ///
    /// # Errors
    /// The database's.
    pub async fn learn_of(&self, first: &[FirstClaim], contexts: &mut Contexts) -> Result<()> {
        self.learn(first.iter().map(|f| f.lane_id), contexts).await
    }

    /// Reads what the jobs of these lanes share, unless it is known.
    async fn learn(&self, lanes: impl Iterator<Item = i64>, contexts: &mut Contexts) -> Result<()> {
        if contexts.lanes.len() > LANES_MAX {
            *contexts = Contexts::default();
        }
        let unknown: HashSet<i64> = lanes.filter(|&id| !contexts.know(id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<i64> = unknown.into_iter().collect();
        let known: Vec<Uuid> = contexts.runs.keys().copied().collect();
        // A run that is not known comes with one of its lanes.
        let rows = sqlx::query!(
            r#"select lane_id as "lane_id!", run_id as "run_id!", kind::text as "kind!", model, pricing, batch_id, request_id,
                      definition_snapshot, params, sample_seed
                 from shared_work($1, $2)"#,
            &unknown,
            &known
        )
        .fetch_all(&self.pool)
        .await?;
        let shared = rows.into_iter().map(|r| {
            Ok(SharedWork {
                lane_id: r.lane_id,
                run_id: r.run_id,
                kind: r.kind.parse()?,
                model: r.model,
                pricing: r.pricing,
                batch_id: r.batch_id,
                request_id: r.request_id,
                definition_snapshot: r.definition_snapshot,
                params: r.params,
                sample_seed: r.sample_seed,
            })
        });
        contexts.learn(shared.collect::<Result<_>>()?);
        Ok(())
    }
}

impl Contexts {
    /// Remembers what came with a claim.
    pub fn learn(&mut self, shared: Vec<SharedWork>) {
        for s in shared {
            let lane = LaneContext { run_id: s.run_id, kind: s.kind, model: s.model, pricing: s.pricing };
            self.lanes.insert(s.lane_id, lane);
            if let (Some(batch_id), Some(request_id), Some(definition), Some(params), Some(sample_seed)) =
                (s.batch_id, s.request_id, s.definition_snapshot, s.params, s.sample_seed)
            {
                let run_id = s.run_id;
                let run = RunContext { run_id, batch_id, request_id, definition, params, sample_seed };
                self.runs.insert(run_id, Arc::new(run));
            }
        }
    }

    /// Whether there is nothing to read of this lane.
    fn know(&self, lane: i64) -> bool {
        self.lanes.get(&lane).is_some_and(|l| self.runs.contains_key(&l.run_id))
    }

    /// What came with its payload, with what the jobs of a run share. It does not hear of what has become of a job since. Jobs of
    /// lanes that are not known are left out: their run was removed since [`Store::learn_of`] asked.
    pub fn first_work(&self, first: Vec<FirstClaim>) -> impl Iterator<Item = (Work, Arc<RunContext>)> {
        first.into_iter().filter_map(|f| self.work(f.claim, f.lane_id, Some(f.scenario)))
    }

    /// A job to which nothing has happened before this claim; none if its run was removed meanwhile.
    fn work(
        &self,
        claim: Claim,
        lane_id: i64,
        scenario: Option<Arc<ScenarioWork>>,
    ) -> Option<(Work, Arc<RunContext>)> {
        let lane = self.lanes.get(&lane_id)?;
        let run = self.runs.get(&lane.run_id)?;
        let work = Work {
            claim,
            taken_in: None,
            lane_id,
            run_id: lane.run_id,
            kind: lane.kind,
            model: lane.model.clone(),
            pricing: lane.pricing.clone(),
            scenario,
            is_suspect: false,
            cancel_requested: false,
            failures: 0,
            failures_retried_once: 0,
            losses_alone: 0,
            throttled: Duration::ZERO,
        };
        Some((work, Arc::clone(run)))
    }
}
