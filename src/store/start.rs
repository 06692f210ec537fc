//! The insert that makes a run with all its jobs.

use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::transaction::in_transaction;
use super::{Result, Store};

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
}

impl Store {
    /// Stores a run, its lanes and its jobs, and wakes the nodes.
    ///
    /// # Errors
    /// [`super::Error::Refused`] when a constraint is violated; nothing is stored then.
    pub async fn insert_run(&self, run: &RunInsert) -> Result<Inserted> {
        let insert = Arc::new(run.clone());
        let stored = in_transaction(self, move |c| {
            let run = Arc::clone(&insert);
            Box::pin(async move { store_run(c, &run).await })
        })
        .await;
        match stored {
            Ok(()) => Ok(Inserted::Created),
            Err(error) if error.constraint() == Some("run_idempotency") => {
                let row = sqlx::query!(
                    r#"select id, input_hash as "input_hash!", deleted_at is not null as "is_deleted!" from run
                        where created_by = $1 and idempotency_key = $2"#,
                    run.created_by,
                    run.idempotency_key
                )
                .fetch_one(&self.pool)
                .await?;
                Ok(Inserted::Exists { id: row.id, input_hash: row.input_hash, is_deleted: row.is_deleted })
            }
            Err(error) if error.constraint() == Some("run_definition_is_there") => Ok(Inserted::NoDefinition),
            Err(error) => Err(error),
        }
    }
}

async fn store_run(c: &mut PgConnection, run: &RunInsert) -> Result<()> {
    sqlx::query_file!(
        "src/store/sql/insert_run.sql",
        run.id,
        run.batch_id,
        run.definition_id,
        run.definition_snapshot,
        run.name,
        run.experiment_id,
        &run.models,
        run.params,
        run.priority,
        run.max_concurrency,
        run.sample_percentage,
        run.sample_seed,
        run.sample_algorithm,
        run.idempotency_key,
        run.input_hash,
        run.metadata,
        run.created_by,
        run.scenario_ids.as_deref(),
        run.request_id,
    )
    .fetch_one(&mut *c)
    .await?;
    sqlx::query!(
        "select record_act('startRun', 'run', r.id::text, r.id, null,
                           jsonb_build_object('status', r.status, 'definitionId', r.definition_id, 'models', r.models,
                                              'priority', r.priority, 'maxConcurrency', r.max_concurrency,
                                              'samplePercentage', r.sample_percentage, 'sampleSeed', r.sample_seed,
                                              'jobs', (select sum(l.total) from lane l where l.run_id = r.id)))
           from run r where r.id = $1",
        run.id
    )
    .fetch_one(c)
    .await?;
    Ok(())
}
