//! `startRun`: one request becomes a run with all its jobs, or nothing.

use super::access::{not_found, require_writer};
use super::estimate::{Forecast, known_sizes};
use super::money::{JobCost, check_budget};
use super::{Entity, Error, Result, Service};
use crate::domain::definition::DefinitionContent;
use crate::domain::estimate::PromptSizes;
use crate::domain::queue::{QueueError, job_count};
use crate::domain::start_run::{NewRun, StartRunInput};
use crate::domain::view::{Definition, Run};
use crate::domain::{ModelId, Requester, ids, sampling};
use crate::store::{Conditions, Inserted, RunInsert};

/// A run that may be started, with all that is to be read of the database.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) definition: Definition,
    pub(super) content: DefinitionContent,
    pub(super) run: NewRun,
    /// Scenarios of the sample.
    pub(super) sampled: u64,
    /// One for each of these and each model.
    pub(super) jobs: u64,
    pub(super) seed: u32,
    /// The sample; `None`: all.
    pub(super) scenario_ids: Option<Vec<i64>>,
}

/// A run that exists now.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The run.
    pub run: Run,
    /// Whether this request made it, rather than an earlier one with the same idempotency key.
    pub is_new: bool,
}

impl Service {
    /// Starts a run. `request_id` is kept with it, so that log lines about its jobs can name it.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR with every mistake, NOT_FOUND for the definition, QUEUE_ERROR for too many jobs of
    /// the run or too many that wait,
    /// CONFLICT when the idempotency key belongs to another input.
    pub async fn start_run(
        &self,
        requester: &Requester,
        request_id: &str,
        input: StartRunInput,
    ) -> Result<Started> {
        require_writer(requester)?;
        let asked = input.definition_id.clone();
        let mut met = self.conditions(requester, &input).await?;
        let prepared = self.prepare(input, met.definition.take()).await?;
        let jobs = prepared.jobs;
        let costs = self.job_costs(&prepared).await?;
        if let Some(budget) = prepared.run.budget {
            check_budget(budget, &prepared.run.models, &costs)?;
        }
        self.check_spending(requester, &prepared, &costs, &met).await?;
        let limits = self.limits_on(&prepared, &met).await?;
        let sizes = match known_sizes(&costs) {
            Some(sizes) => sizes,
            // Nothing that is kept of the forecast depends on them.
            None if limits.is_empty() => PromptSizes::default(),
            None => self.prompt_sizes(&prepared).await?,
        };
        let forecast = self.forecast(&prepared, &costs, sizes, &met, limits);
        let tokens = self.config.numbers.expected_output_tokens;
        let insert = run_insert(requester, request_id, prepared, costs, &forecast, tokens)?;

        self.admit(&insert, met.waiting)?;
        let (id, hash) = (insert.id, insert.input_hash.clone());
        let waiting_max = self.config.numbers.user_waiting_jobs_max;
        let inserted = self
            .store
            .acting_for(requester)
            .insert_run(insert, as_i64(jobs), met.waiting_of_creator, as_i64(waiting_max))
            .await
            .map_err(|e| self.failed(e))?;
        let (id, is_new) = match inserted {
            Inserted::Created => (id, true),
            Inserted::NoDefinition => return Err(not_found(Entity::Definition, &asked)),
            Inserted::Exists { is_deleted: true, .. } => {
                return Err(Error::Conflict(
                    "The idempotencyKey belongs to a run that has been deleted: give another key, or ask an admin \
                     to restore the run."
                        .to_owned(),
                ));
            }
            Inserted::Exists { id, input_hash, .. } if input_hash == hash => (id, false),
            Inserted::Exists { id, .. } => {
                return Err(Error::Conflict(format!(
                    "The idempotencyKey was used before, with another input, and started the run {id}: \
                     give another key, or the same input."
                )));
            }
            Inserted::TooManyWaiting { waiting } => {
                let waiting = waiting.unsigned_abs();
                return Err(QueueError::TooManyWaiting { jobs, waiting, limit: waiting_max }.into());
            }
        };
        // The creator sees what it created.
        let found = self.read_back(|| self.store.run(id)).await.map_err(|e| match e.public() {
            // Whoever took this for a failure would pay for the same run twice.
            Some(why) => self.unavailable(
                format!(
                    "The run {id} has been started and must not be started again, but cannot be shown. {why}"
                ),
                &e,
            ),
            None => Error::internal(&e),
        })?;
        let run = found.ok_or_else(|| not_found(Entity::Run, &id.to_string()))?;
        if is_new {
            tracing::info!(
                batch_id = %run.batch_id,
                run_id = %run.id,
                definition_id = %run.definition_id,
                jobs,
                by = requester.subject,
                "run started"
            );
        } else {
            tracing::info!(batch_id = %run.batch_id, run_id = %run.id, "startRun repeated with its idempotency key");
        }
        Ok(Started { run, is_new })
    }

    /// What a run meets that is started with this input, which nobody has checked yet.
    pub(super) async fn conditions(
        &self,
        requester: &Requester,
        input: &StartRunInput,
    ) -> Result<Conditions> {
        let definition = input.definition_id.parse().ok();
        // Nothing is known of what is no model, and not every text can be asked for.
        let models = input.models.iter().filter_map(|m| m.parse::<ModelId>().ok());
        let models: Vec<String> = models.take(self.limits.models_max).map(|m| m.to_string()).collect();
        self.store
            .conditions(definition, &models, &requester.subject, input.priority.value())
            .await
            .map_err(|e| self.failed(e))
    }

    /// Checks what is asked for, and draws the sample. `definition` is what the input names, if that exists.
    ///
    /// # Errors
    /// VALIDATION_ERROR with every mistake, NOT_FOUND for the definition, QUEUE_ERROR for too many jobs.
    pub(super) async fn prepare(
        &self,
        input: StartRunInput,
        definition: Option<Definition>,
    ) -> Result<Prepared> {
        let asked = input.definition_id.clone();
        let content = definition.as_ref().map(content).transpose()?;
        let defaults = content.as_ref().and_then(|c| c.params).unwrap_or_default();
        let run = input.check(&defaults, &self.limits)?;
        let (definition, content) =
            definition.zip(content).ok_or_else(|| not_found(Entity::Definition, &asked))?;
        let percentage = run.sample_percentage;
        let scenarios = usize::try_from(definition.scenario_count).unwrap_or(0);
        let sampled = sampling::sample_size(scenarios, percentage);
        let jobs = job_count(sampled, run.models.len(), self.limits.run_jobs_max)?;
        let seed = run.sample_seed.unwrap_or_else(|| self.draw_seed());
        let scenario_ids =
            if sampled == scenarios { None } else { Some(self.sample(&definition, percentage, seed).await?) };
        Ok(Prepared { definition, content, run, sampled: sampled as u64, jobs, seed, scenario_ids })
    }

    /// The ids of the scenarios that this seed takes.
    async fn sample(&self, definition: &Definition, percentage: u32, seed: u32) -> Result<Vec<i64>> {
        let scenarios = self.store.scenario_keys(definition.id).await.map_err(|e| self.failed(e))?;
        super::compute(move || {
            let keys: Vec<&str> = scenarios.iter().map(|s| s.key.as_str()).collect();
            sampling::sample(&keys, percentage, seed).into_iter().map(|i| scenarios[i].id).collect()
        })
        .await
    }
}

fn as_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the definition asks.
fn content(definition: &Definition) -> Result<DefinitionContent> {
    serde_json::from_value(definition.content.clone()).map_err(|e| Error::internal(&e))
}

fn run_insert(
    requester: &Requester,
    request_id: &str,
    prepared: Prepared,
    costs: Vec<Option<JobCost>>,
    forecast: &Forecast,
    expected_output_tokens: i32,
) -> Result<RunInsert> {
    let Prepared { definition, run, seed, scenario_ids, .. } = prepared;
    let narrow = |error: std::num::TryFromIntError| Error::internal(&error);
    Ok(RunInsert {
        id: ids::new_id(),
        batch_id: ids::new_id(),
        request_id: request_id.to_owned(),
        definition_id: definition.id,
        definition_snapshot: definition.content,
        input_hash: hex::decode(run.input_hash()).map_err(|e| Error::internal(&e))?,
        pricing: costs.iter().map(|c| c.as_ref().map(|c| c.prices.to_protocol())).collect(),
        estimate_usd: costs.iter().map(|c| c.as_ref().map(|c| c.at_most_usd)).collect(),
        expected_ms: forecast.ms,
        expected_usd: forecast.usd,
        budget: run.budget,
        failures: run.failures,
        models: run.models.iter().map(ModelId::to_string).collect(),
        params: serde_json::to_value(run.params).map_err(|e| Error::internal(&e))?,
        priority: run.priority.value(),
        max_concurrency: run.max_concurrency.map(i32::try_from).transpose().map_err(narrow)?,
        sample_percentage: i16::try_from(run.sample_percentage).map_err(narrow)?,
        sample_seed: i32::try_from(seed).map_err(narrow)?,
        sample_algorithm: sampling::ALGORITHM,
        name: run.name,
        experiment_id: run.experiment_id,
        idempotency_key: run.idempotency_key,
        metadata: run.metadata,
        created_by: requester.subject.clone(),
        created_group: requester.group.clone(),
        scenario_ids,
        expected_output_tokens,
    })
}
