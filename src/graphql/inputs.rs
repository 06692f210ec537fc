//! The inputs of mutations. They only carry: the domain checks them, so that every mistake is named at once.

use async_graphql::{ID, InputObject, Json};
use serde_json::Value;

use super::enums::{GuardAction, RunPriority, StalenessAction};
use super::scalars::Money;
use crate::domain::{definition, params, start_run};

/// A definition to create. An existing name makes the next version.
#[derive(InputObject)]
pub(super) struct CreateDefinitionInput {
    /// One line of text.
    name: String,
    /// What is asked.
    content: DefinitionContentInput,
    /// The scenarios; left out, they are the product of the dimensions put into the template.
    scenarios: Option<Vec<ScenarioInput>>,
}

/// What a definition asks.
#[derive(InputObject)]
pub(super) struct DefinitionContentInput {
    /// The version of this form: 1.
    #[graphql(default = 1)]
    schema_version: i32,
    /// Put before every prompt, as it stands.
    preamble: Option<String>,
    /// The prompt, with a `{placeholder}` for each dimension; `{{` and `}}` stand for braces.
    template: Option<String>,
    /// What scenarios differ in.
    dimensions: Option<Vec<DimensionInput>>,
    /// Asked one after the other once the prompt is answered, as they stand.
    followups: Option<Vec<String>>,
    /// How answers are scored; left out, they are not.
    scoring: Option<ScoringInput>,
    /// What the probes of its runs are called with, unless a run says otherwise.
    params: Option<RunParamsInput>,
    /// When its runs and jobs count as stale.
    lifecycle: Option<LifecycleInput>,
}

/// When a state of this definition's runs and jobs counts as stale, and what then; left out, the installation's values
/// hold. Minutes are 1 to 525,600 (a year).
#[derive(InputObject)]
pub(super) struct LifecycleInput {
    /// A run that takes longer is stale. What waits under a pause is not, and a pause starts every clock anew.
    max_duration_minutes: Option<i32>,
    /// A job that waits longer for its first attempt, for a slot or for others, is stale.
    max_waiting_for_dependencies_minutes: Option<i32>,
    /// A job that waits longer for another attempt is stale.
    max_waiting_for_retry_minutes: Option<i32>,
    /// An attempt that takes longer is stale.
    max_steps_in_process_minutes: Option<i32>,
    /// What is done about a stale job. A run is never requeued, and fails only with autoFailOnTimeout.
    staleness_action: Option<StalenessAction>,
    /// Whether a stale run fails: what waits of it is then cancelled, and retryFailedJobs reopens it.
    auto_fail_on_timeout: Option<bool>,
    /// Whether a stale job becomes a dead letter; with REQUEUE once requeues have not helped. False forbids it.
    auto_dlq_on_timeout: Option<bool>,
}

/// One thing that scenarios differ in.
#[derive(InputObject)]
pub(super) struct DimensionInput {
    /// The name, and that of its placeholder.
    name: String,
    /// The values, each once.
    values: Vec<String>,
}

/// The score of a transcript is the first integer within these bounds in the last answer.
#[derive(InputObject)]
pub(super) struct ScoringInput {
    /// The least score.
    min: i32,
    /// The greatest score.
    max: i32,
}

/// One concrete prompt.
#[derive(InputObject)]
pub(super) struct ScenarioInput {
    /// Unique in the definition; keep it when you create the next version.
    key: String,
    /// What the model is asked.
    prompt: String,
    /// What sets it apart: an object of texts, numbers and booleans.
    dimensions: Option<Json<Value>>,
}

/// A run to start.
#[derive(InputObject)]
pub(super) struct StartRunInput {
    /// What to evaluate.
    definition_id: ID,
    /// `provider/name` each, such as `mock/rater`.
    models: Vec<String>,
    /// How much of the definition's scenarios to take: 1 to 100.
    #[graphql(default = 100)]
    sample_percentage: i32,
    /// What decides which scenarios, 0 to 2147483647; left out, one is drawn and kept with the run.
    sample_seed: Option<i32>,
    /// How urgent it is.
    #[graphql(default_with = "RunPriority::Normal")]
    priority: RunPriority,
    /// An id of your own, by which runs can be found.
    experiment_id: Option<ID>,
    /// For people.
    name: Option<String>,
    /// What probes are called with, before the definition's own.
    params: Option<RunParamsInput>,
    /// How many of its probes run at once at most; left out, as many as there are slots.
    max_concurrency: Option<i32>,
    /// Makes a repeat of the same request harmless: it answers with the run that the first one started.
    idempotency_key: Option<String>,
    /// Notes of your own.
    metadata: Option<Json<Value>>,
    /// What it may cost, in US dollars: a probe starts only while it is expected to fit, so no more is overspent than what
    /// runs costs beyond its estimate. All models must have a price.
    budget_usd: Option<Money>,
    /// What happens when no further probe fits into the budget.
    #[graphql(default_with = "GuardAction::Pause")]
    on_budget: GuardAction,
    /// The part of its finished probes that may fail, 0 to below 1; with more, `onFailureRate` happens.
    max_failure_rate: Option<f64>,
    /// How many probes must have finished, since it was started or resumed, before `maxFailureRate` is looked at; left
    /// out, 20 unless the operator has set another number.
    min_finished: Option<i32>,
    /// What happens when too many probes fail.
    #[graphql(default_with = "GuardAction::Pause")]
    on_failure_rate: GuardAction,
}

/// What every probe of the run is called with; the definition's params are the defaults.
#[derive(InputObject)]
pub(super) struct RunParamsInput {
    /// 0 to 2.
    temperature: Option<f64>,
    /// The longest answer, in tokens.
    max_tokens: Option<i32>,
    /// The most turns of a conversation.
    max_turns: Option<i32>,
    /// For models that take one.
    seed: Option<i32>,
    /// How long an attempt may take.
    timeout_seconds: Option<i32>,
}

impl From<CreateDefinitionInput> for definition::CreateDefinition {
    fn from(input: CreateDefinitionInput) -> Self {
        Self {
            name: input.name,
            content: input.content.into(),
            scenarios: input.scenarios.map(|list| list.into_iter().map(Into::into).collect()),
        }
    }
}

impl From<DefinitionContentInput> for definition::DefinitionContent {
    fn from(input: DefinitionContentInput) -> Self {
        let dimension = |d: DimensionInput| definition::Dimension { name: d.name, values: d.values };
        Self {
            schema_version: input.schema_version,
            preamble: input.preamble,
            template: input.template,
            dimensions: input.dimensions.map(|list| list.into_iter().map(dimension).collect()),
            followups: input.followups,
            scoring: input.scoring.map(|s| definition::Scoring { min: s.min, max: s.max }),
            params: input.params.map(Into::into),
            lifecycle: input.lifecycle.map(Into::into),
        }
    }
}

impl From<LifecycleInput> for definition::Lifecycle {
    fn from(input: LifecycleInput) -> Self {
        Self {
            max_duration_minutes: input.max_duration_minutes,
            max_waiting_for_dependencies_minutes: input.max_waiting_for_dependencies_minutes,
            max_waiting_for_retry_minutes: input.max_waiting_for_retry_minutes,
            max_steps_in_process_minutes: input.max_steps_in_process_minutes,
            staleness_action: input.staleness_action.map(Into::into),
            auto_fail_on_timeout: input.auto_fail_on_timeout,
            auto_dlq_on_timeout: input.auto_dlq_on_timeout,
        }
    }
}

impl From<ScenarioInput> for definition::Scenario {
    fn from(input: ScenarioInput) -> Self {
        let dimensions = input.dimensions.map_or(Value::Null, |json| json.0);
        Self { key: input.key, prompt: input.prompt, dimensions }
    }
}

impl From<StartRunInput> for start_run::StartRunInput {
    fn from(input: StartRunInput) -> Self {
        Self {
            definition_id: input.definition_id.into(),
            models: input.models,
            sample_percentage: input.sample_percentage,
            sample_seed: input.sample_seed,
            priority: input.priority.into(),
            experiment_id: input.experiment_id.map(String::from),
            name: input.name,
            params: input.params.map(Into::into),
            max_concurrency: input.max_concurrency,
            idempotency_key: input.idempotency_key,
            metadata: input.metadata.map(|json| json.0),
            budget_usd: input.budget_usd.map(|usd| usd.0),
            on_budget: input.on_budget.into(),
            max_failure_rate: input.max_failure_rate,
            min_finished: input.min_finished,
            on_failure_rate: input.on_failure_rate.into(),
        }
    }
}

impl From<RunParamsInput> for params::RunParams {
    fn from(input: RunParamsInput) -> Self {
        Self {
            temperature: input.temperature,
            max_tokens: input.max_tokens,
            max_turns: input.max_turns,
            seed: input.seed,
            timeout_seconds: input.timeout_seconds,
        }
    }
}
