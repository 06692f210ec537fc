//! The insert that makes a run with all its jobs.

use std::time::Instant;

use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::connections::{Connections, is_broken};
use super::crash::crash_point;
use super::estimates::Capacity;
use super::transaction::RERUNS;
use super::{Error, Result, Store};
use crate::domain::Requester;
use crate::domain::forecast::ModelStatistic;
use crate::domain::guard::{Budget, FailureGuard, GuardAction};
use crate::domain::view::Definition;

/// Everything that a new run is made of.
#[derive(Debug, Clone)]
pub struct RunInsert {
    /// The run's id.
    pub id: Uuid,
    /// Shared by everything that one request creates.
    pub batch_id: Uuid,
    /// The `X-Request-ID` of the request that makes it.
    pub request_id: String,
    /// What is asked.
    pub definition_id: Uuid,
    /// The definition as it is now.
    pub definition_snapshot: Value,
    /// For people.
    pub name: Option<String>,
    /// Groups runs.
    pub experiment_id: Option<String>,
    /// One lane each, in this order.
    pub models: Vec<String>,
    /// What the tokens of each cost, as the worker protocol has it; `None`: unknown. Shorter than the models: unknown too.
    pub pricing: Vec<Option<Value>>,
    /// US dollars that a job of each model is expected to cost at most; as long as `pricing`.
    pub estimate_usd: Vec<Option<Decimal>>,
    /// What is foretold of it: milliseconds from its first claim to its end, …
    pub expected_ms: Option<f64>,
    /// … and US dollars.
    pub expected_usd: Option<Decimal>,
    /// What it may cost.
    pub budget: Option<Budget>,
    /// How often it may fail.
    pub failures: Option<FailureGuard>,
    /// What every probe is called with.
    pub params: Value,
    /// 0 to 100, higher first.
    pub priority: i16,
    /// Probes of the run that may be active at once, over all nodes.
    pub max_concurrency: Option<i32>,
    /// 1 to 100.
    pub sample_percentage: i16,
    /// What the sample was drawn with.
    pub sample_seed: i32,
    /// How the sample was drawn.
    pub sample_algorithm: &'static str,
    /// Scoped to the creator.
    pub idempotency_key: Option<String>,
    /// SHA-256 of the input after defaults.
    pub input_hash: Vec<u8>,
    /// The client's own.
    pub metadata: Option<Value>,
    /// The requester's subject.
    pub created_by: String,
    /// Tokens that an answer is expected to have, unless it is limited to fewer.
    pub expected_output_tokens: i32,
    /// The requester's group.
    pub created_group: Option<String>,
    /// The sample; `None` takes all scenarios of the definition.
    pub scenario_ids: Option<Vec<i64>>,
}

/// What became of the insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// The run, its lanes and its jobs are stored.
    Created,
    /// The creator used this idempotency key before; nothing was stored.
    Exists {
        /// The earlier run.
        id: Uuid,
        /// The hash of the input that made it.
        input_hash: Vec<u8>,
        /// Somebody has deleted it since; the key stays with it until it is gone for good.
        is_deleted: bool,
    },
    /// The definition is gone; nothing was stored.
    NoDefinition,
    /// With these the creator would have too many jobs waiting; nothing was stored.
    TooManyWaiting {
        /// How many wait already.
        waiting: i64,
    },
}

/// What a new run meets, as far as one look shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// Its definition, unless there is none, or somebody has deleted it.
    pub definition: Option<Definition>,
    /// Whether any provider is only for some roles, …
    pub has_provider_roles: bool,
    /// … whether there is any spend limit, …
    pub has_spend_limits: bool,
    /// … and any rate limit. Of what there is not nothing has to be read.
    pub has_rate_limits: bool,
    /// How many jobs wait in the whole queue.
    pub waiting: i64,
    /// How many of them in the runs of its creator.
    pub waiting_of_creator: i64,
    /// Who would run its probes.
    pub capacity: Capacity,
    /// What is known of those of its models that have run, in no order.
    pub statistics: Vec<ModelStatistic>,
}

impl Store {
    /// What a run of these models meets if this user starts it with this priority.
    ///
    /// # Errors
    /// The database's.
    pub async fn conditions(
        &self,
        definition: Option<Uuid>,
        models: &[String],
        user: &str,
        priority: i16,
    ) -> Result<Conditions> {
        let row = sqlx::query!(
            r#"select exists (select from provider_role) as "has_provider_roles!",
                      exists (select from spend_limit) as "has_spend_limits!",
                      exists (select from rate_limit) as "has_rate_limits!",
                      (select coalesce(sum(l.pending), 0)::bigint from lane l
                        where l.is_live and l.id >= (select m.live_from from live_mark m) and l.is_open) as "waiting!",
                      (select coalesce(sum(l.pending), 0)::bigint from lane l join run r on r.id = l.run_id
                        where l.is_live and l.id >= (select m.live_from from live_mark m)
                          and r.created_by = $1) as "waiting_of_creator!",
                      c.slots as "slots!", c.other_runs as "other_runs!",
                      (select coalesce(jsonb_agg(to_jsonb(s)), '[]') from model_statistic s where s.model = any ($3))
                        as "statistics!: Json<Vec<ModelStatistic>>",
                      d.id as "id?", d.seq as "seq?", d.name as "name?", d.version as "version?", d.content as "content?",
                      d.scenario_count as "scenario_count?", d.created_by as "created_by?", d.created_at as "created_at?"
                 from probe_capacity($2) as c
                 left join definition d on d.id = $4 and d.deleted_at is null"#,
            user,
            priority,
            models,
            definition
        )
        .fetch_one(&self.pool)
        .await?;
        let definition = match (row.id, row.seq, row.name, row.version, row.content, row.scenario_count) {
            (Some(id), Some(seq), Some(name), Some(version), Some(content), Some(scenario_count)) => {
                row.created_by.zip(row.created_at).map(|(created_by, created_at)| Definition {
                    id,
                    seq,
                    name,
                    version,
                    content,
                    scenario_count,
                    created_by,
                    created_at,
                })
            }
            _ => None,
        };
        Ok(Conditions {
            definition,
            has_provider_roles: row.has_provider_roles,
            has_spend_limits: row.has_spend_limits,
            has_rate_limits: row.has_rate_limits,
            waiting: row.waiting,
            waiting_of_creator: row.waiting_of_creator,
            capacity: Capacity { slots: row.slots, other_runs: row.other_runs },
            statistics: row.statistics.0,
        })
    }

    /// Stores a run of `jobs` jobs, its lanes and its jobs, and wakes the nodes, if then no more than `waiting_max` jobs
    /// of its creator wait. When so many do already with `waiting`, those that were seen to wait before, nothing is tried.
    ///
    /// # Errors
    /// [`super::Error::Refused`] when a constraint is violated; nothing is stored then.
    pub async fn insert_run(
        &self,
        run: RunInsert,
        jobs: i64,
        waiting: i64,
        waiting_max: i64,
    ) -> Result<Inserted> {
        if let Some(earlier) = self.earlier(&run).await? {
            return Ok(earlier);
        }
        if waiting + jobs > waiting_max {
            return Ok(Inserted::TooManyWaiting { waiting });
        }
        crash_point("start.before");
        let Err(refused) = self.insert(&run, waiting_max).await else {
            crash_point("start.after");
            return Ok(Inserted::Created);
        };
        match refused.constraint() {
            // Committed since we looked: the insert has waited for it.
            Some("run_idempotency") => self.earlier(&run).await?.ok_or(refused),
            Some("run_definition_is_there") => Ok(Inserted::NoDefinition),
            Some("user_waiting_jobs_max") => {
                Ok(Inserted::TooManyWaiting { waiting: self.waiting_of(&run.created_by).await? })
            }
            _ => Err(refused),
        }
    }

    /// Makes the run in one statement that is a transaction of its own. When its answer is lost it is tried again: the run's
    /// key tells whether it is there, and whoever tries while an earlier try goes on waits for its end.
    async fn insert(&self, run: &RunInsert, waiting_max: i64) -> Result<()> {
        // What was lost is known here, so nobody else tries again.
        let connections = Connections { reads_again: false, ..self.pool.clone() };
        let patience = connections.patience;
        let (mut reruns, mut retries, mut lost) = (0, 0, None::<Instant>);
        loop {
            let error = match start(&connections, self.actor.as_deref(), run, waiting_max).await {
                Err(Error::Contended(error)) if reruns < RERUNS => {
                    reruns += 1;
                    tracing::debug!(%error, reruns, "the start of a run is tried again");
                    continue;
                }
                Err(Error::Unavailable(error)) => error,
                Err(error) if error.constraint() == Some("run_pkey") => return Ok(()),
                answer => return answer,
            };
            let is_lost = is_broken(&error);
            // An earlier try may still be in the way, for as long as a statement may take.
            let is_in_doubt = is_lost || lost.is_some();
            let may_retry = if is_lost {
                retries < patience.retries
            } else {
                lost.is_some_and(|l| l.elapsed() < patience.answer)
            };
            if !may_retry {
                if is_in_doubt {
                    tracing::error!(%error, run_id = %run.id, "an answer was lost, and it cannot be learned whether this run was started");
                }
                return Err(Error::Unavailable(error));
            }
            if is_lost {
                retries += 1;
                lost = Some(Instant::now());
                tracing::warn!(%error, retries, run_id = %run.id, "the answer to the start of a run was lost; it is tried again");
            }
            tokio::time::sleep(patience.retry_delay).await;
        }
    }

    /// The run that its creator made with the same key.
    async fn earlier(&self, run: &RunInsert) -> Result<Option<Inserted>> {
        let Some(key) = &run.idempotency_key else { return Ok(None) };
        let row = sqlx::query!(
            r#"select id, input_hash as "input_hash!", deleted_at is not null as "is_deleted!" from run
            where created_by = $1 and idempotency_key = $2"#,
            run.created_by,
            key
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|r| Inserted::Exists { id: r.id, input_hash: r.input_hash, is_deleted: r.is_deleted }))
    }

    /// How many jobs wait in the runs of this user.
    async fn waiting_of(&self, user: &str) -> Result<i64> {
        Ok(sqlx::query_scalar!(
            r#"select coalesce(sum(l.pending), 0)::bigint as "n!"
                 from lane l join run r on r.id = l.run_id
                where l.is_live and l.id >= (select m.live_from from live_mark m)
                  and r.created_by = $1"#,
            user
        )
        .fetch_one(&self.pool)
        .await?)
    }
}

/// Stores the run in the name of `actor`.
async fn start(
    connections: &Connections,
    actor: Option<&Requester>,
    run: &RunInsert,
    waiting_max: i64,
) -> Result<()> {
    sqlx::query!(
        r#"select start_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                            $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)"#,
        actor.map(|a| a.subject.as_str()),
        actor.map(|a| a.role.as_str()),
        actor.map(|a| a.request_id.as_str()),
        run.id,
        run.batch_id,
        run.request_id,
        run.definition_id,
        run.definition_snapshot,
        run.name,
        run.experiment_id,
        run.params,
        run.priority,
        run.max_concurrency,
        run.sample_percentage,
        run.sample_seed,
        run.sample_algorithm,
        run.scenario_ids.as_deref(),
        run.idempotency_key,
        run.input_hash,
        run.metadata,
        run.created_by,
        run.created_group,
        &run.models,
        &run.pricing as &[Option<Value>],
        &run.estimate_usd as &[Option<Decimal>],
        run.budget.map(|b| b.usd),
        run.budget.map_or(GuardAction::Pause, |b| b.action).as_str(),
        run.failures.map(|f| f.max_rate),
        run.failures.map(|f| f.min_finished),
        run.failures.map_or(GuardAction::Pause, |f| f.action).as_str(),
        run.expected_ms,
        run.expected_usd,
        run.expected_output_tokens,
        waiting_max
    )
    .execute(connections)
    .await?;
    Ok(())
}
