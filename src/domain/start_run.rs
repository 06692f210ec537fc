//! What `startRun` is given, and what it comes to.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;
use validator::Validate;

use super::guard::{Budget, FailureGuard, GuardAction, check_usd};
use super::json::{canonical_hash, check_json};
use super::limits::Limits;
use super::model_id::{ModelId, check_models};
use super::params::RunParams;
use super::run::RunPriority;
use super::validation::{Checker, Length, TextRule, ValidationErrors, shorten};

/// The input of `startRun`, as given; what GraphQL has a default for is filled in.
#[derive(Debug, Clone, PartialEq, Validate)]
pub struct StartRunInput {
    /// The definition.
    pub definition_id: String,
    /// `provider/name` each.
    pub models: Vec<String>,
    /// 1 to 100.
    #[validate(range(min = 1, max = 100))]
    pub sample_percentage: i32,
    /// 0 to 2³¹−1; drawn when left out.
    #[validate(range(min = 0, max = 2_147_483_647))]
    pub sample_seed: Option<i32>,
    /// How urgent it is.
    pub priority: RunPriority,
    /// An id of the client's own.
    pub experiment_id: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// What probes are called with, before the definition's own.
    pub params: Option<RunParams>,
    /// Jobs of the run that may be active at once: 1 to 100,000.
    #[validate(range(min = 1, max = 100_000))]
    pub max_concurrency: Option<i32>,
    /// Makes a repeat of the same request harmless.
    pub idempotency_key: Option<String>,
    /// Any JSON.
    pub metadata: Option<Value>,
    /// US dollars that it may cost.
    pub budget_usd: Option<Decimal>,
    /// What happens when no further job fits into the budget.
    pub on_budget: GuardAction,
    /// Failed of finished, 0 to below 1: more trips the guard.
    pub max_failure_rate: Option<f64>,
    /// So many must have finished before that is looked at: 1 to 1,000,000.
    #[validate(range(min = 1, max = 1_000_000))]
    pub min_finished: Option<i32>,
    /// What happens then.
    pub on_failure_rate: GuardAction,
}

/// A run that may be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The definition, as a lower-case UUID where it is one. (Another text is the id of none.)
    pub definition_id: String,
    /// The models, each once.
    pub models: Vec<ModelId>,
    /// 1 to 100.
    pub sample_percentage: u32,
    /// At most 2³¹−1; `None` when one is to be drawn.
    pub sample_seed: Option<u32>,
    /// How urgent it is.
    pub priority: RunPriority,
    /// An id of the client's own.
    pub experiment_id: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// The run's params, and the definition's where the run says nothing.
    pub params: RunParams,
    /// Jobs that may be active at once.
    pub max_concurrency: Option<u32>,
    /// Makes a repeat of the same request harmless.
    pub idempotency_key: Option<String>,
    /// Any JSON; an explicit null counts as left out.
    pub metadata: Option<Value>,
    /// What it may cost.
    pub budget: Option<Budget>,
    /// How often it may fail.
    pub failures: Option<FailureGuard>,
}

impl StartRunInput {
    /// Checks everything and fills in `defaults`, the definition's own params. Paths begin with `input`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn check(self, defaults: &RunParams, limits: &Limits) -> Result<NewRun, ValidationErrors> {
        let mut checker = Checker::new("input", limits.mistakes_max);
        let short = TextRule::name(Length::Chars(limits.name_max_chars));
        let models = checker.within("models", |c| check_models(c, &self.models, limits));
        checker.derived(&self);
        for (field, value) in [("experimentId", &self.experiment_id), ("name", &self.name)] {
            if let Some(value) = value {
                checker.within(field, |c| c.text(value, short));
            }
        }
        if let Some(params) = &self.params {
            checker.within("params", |c| params.check(c));
        }
        if let Some(key) = &self.idempotency_key {
            checker.within("idempotencyKey", |c| check_idempotency_key(c, key, limits));
        }
        let metadata = self.metadata.filter(|m| !m.is_null());
        if let Some(metadata) = &metadata {
            checker.within("metadata", |c| check_json(c, metadata, limits.metadata_max_bytes));
        }
        if let Some(usd) = self.budget_usd {
            checker.within("budgetUsd", |c| check_usd(c, usd));
        }
        if let Some(rate) = self.max_failure_rate.filter(|rate| !(0.0..1.0).contains(rate)) {
            checker.within("maxFailureRate", |c| {
                c.error(format!(
                    "is {rate}, which is no such rate: give a number from 0 to below 1, such as 0.1"
                ));
            });
        }
        if self.min_finished.is_some() && self.max_failure_rate.is_none() {
            checker.within("minFinished", |c| {
                c.error("says nothing without maxFailureRate: give both or neither")
            });
        }
        checker.finish()?;
        Ok(NewRun {
            budget: self.budget_usd.map(|usd| Budget { usd: usd.normalize(), action: self.on_budget }),
            failures: self.max_failure_rate.map(|max_rate| FailureGuard {
                // Adding zero turns -0 into 0.
                max_rate: max_rate + 0.0,
                min_finished: self.min_finished.unwrap_or(limits.guard_min_finished),
                action: self.on_failure_rate,
            }),
            definition_id: Uuid::parse_str(&self.definition_id)
                .map_or(self.definition_id, |id| id.to_string()),
            models,
            sample_percentage: self.sample_percentage.unsigned_abs(),
            sample_seed: self.sample_seed.map(i32::unsigned_abs),
            priority: self.priority,
            experiment_id: self.experiment_id,
            name: self.name,
            params: self.params.unwrap_or_default().or(defaults),
            max_concurrency: self.max_concurrency.map(i32::unsigned_abs),
            idempotency_key: self.idempotency_key,
            metadata,
        })
    }
}

fn check_idempotency_key(c: &mut Checker, key: &str, limits: &Limits) {
    if c.text(key, TextRule::name(Length::Chars(limits.name_max_chars)))
        && !key.chars().all(|k| k.is_ascii_graphic())
    {
        c.error(format!(
            "{} has characters other than visible ASCII: give letters, digits and signs without spaces, such as a UUID",
            shorten(key)
        ));
    }
}

impl NewRun {
    /// SHA-256, in hexadecimal, of what was asked for: two requests with the same idempotency key must have the
    /// same. The key itself is no part of it, nor is a drawn seed.
    #[must_use]
    pub fn input_hash(&self) -> String {
        let mut input = json!({
            "v": 1,
            "definitionId": self.definition_id,
            "models": self.models.iter().map(ModelId::as_str).collect::<Vec<_>>(),
            "samplePercentage": self.sample_percentage,
            "sampleSeed": self.sample_seed,
            "priority": self.priority.value(),
            "experimentId": self.experiment_id,
            "name": self.name,
            "params": self.params,
            "maxConcurrency": self.max_concurrency,
            "metadata": self.metadata,
        });
        if let Some(budget) = self.budget {
            input["budget"] = json!([budget.usd.to_string(), budget.action.as_str()]);
        }
        if let Some(guard) = self.failures {
            input["failures"] = json!([guard.max_rate, guard.min_finished, guard.action.as_str()]);
        }
        canonical_hash(&input)
    }
}

#[cfg(test)]
#[path = "start_run_tests.rs"]
mod tests;
