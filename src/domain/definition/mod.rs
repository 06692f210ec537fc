//! Definitions: what is asked, and the scenarios that follow from it.
//!
//! Scenarios are either given, or made as the product of the dimensions put into the template. Given ones win:
//! a template and dimensions beside them are kept as description and not expanded. Placeholders are replaced
//! in the template only; a preamble and follow-ups go to the model as they stand.

mod check;
mod expand;
mod key;
mod template;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use validator::Validate;

use super::params::RunParams;
use super::text_enum::text_enum;

pub use check::Checked;
pub use key::{escape_key_part, scenario_name};

/// The one version of [`DefinitionContent`] so far.
pub const SCHEMA_VERSION: i32 = 1;

/// The key of the one scenario that a template without placeholders and dimensions makes.
pub const SINGLE_SCENARIO_KEY: &str = "default";

/// What `createDefinition` is given.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateDefinition {
    /// The name; an existing one makes the next version.
    pub name: String,
    /// What is asked.
    pub content: DefinitionContent,
    /// The scenarios, unless they are to be made from template and dimensions.
    pub scenarios: Option<Vec<Scenario>>,
}

/// What a definition asks, as it is stored and shown: camelCase JSON, what was left out is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionContent {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: i32,
    /// Put before every prompt, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preamble: Option<String>,
    /// The prompt with `{placeholders}` named like dimensions; `{{` and `}}` stand for braces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What scenarios differ in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<Vec<Dimension>>,
    /// Asked one after the other once the prompt is answered, as they stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followups: Option<Vec<String>>,
    /// How answers are scored; without it, they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring: Option<Scoring>,
    /// The defaults of this definition's runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<RunParams>,
    /// When runs and jobs count as stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
}

/// One thing that scenarios differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// The name, and that of its placeholder.
    pub name: String,
    /// The values, each once.
    pub values: Vec<String>,
}

/// The score of a transcript is the first integer within these bounds in the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Validate)]
pub struct Scoring {
    /// The least score.
    #[validate(range(min = -1_000_000, max = 1_000_000))]
    pub min: i32,
    /// The greatest score, above the least.
    #[validate(range(min = -1_000_000, max = 1_000_000))]
    pub max: i32,
}

text_enum! {
    /// What is done about a stale run or job.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    StalenessAction {
        /// It is reported.
        Report = "REPORT",
        /// It is put back into the queue.
        Requeue = "REQUEUE",
        /// It is given up: a dead letter.
        Dlq = "DLQ",
    }
}

/// When a state of this definition's runs and jobs counts as stale, and what then; what is left out is the
/// installation's to say. Minutes are 1 to 525,600 (a year).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// A run that takes longer is stale.
    #[validate(range(min = 1, max = 525_600))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration_minutes: Option<i32>,
    /// A job that waits longer for others is stale.
    #[validate(range(min = 1, max = 525_600))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting_for_dependencies_minutes: Option<i32>,
    /// A job that waits longer for its next attempt is stale.
    #[validate(range(min = 1, max = 525_600))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting_for_retry_minutes: Option<i32>,
    /// An attempt that takes longer is stale.
    #[validate(range(min = 1, max = 525_600))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps_in_process_minutes: Option<i32>,
    /// What is done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_action: Option<StalenessAction>,
    /// Whether a stale run fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_fail_on_timeout: Option<bool>,
    /// Whether a stale job becomes a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_dlq_on_timeout: Option<bool>,
}

/// One concrete prompt of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Unique in its definition; never parsed.
    pub key: String,
    /// What the model is asked.
    pub prompt: String,
    /// What sets it apart: names with a text, a number or a boolean each. Of a given scenario, `Value::Null`
    /// where it was left out; of a checked one, always an object.
    pub dimensions: Value,
}

impl Scenario {
    /// The dimensions of a checked scenario.
    #[must_use]
    pub fn dimension_map(&self) -> Option<&Map<String, Value>> {
        self.dimensions.as_object()
    }
}

#[cfg(test)]
mod tests;
