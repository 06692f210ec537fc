//! Checks a new definition and makes its scenarios.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::expand::Product;
use super::template::{self, Piece};
use super::{CreateDefinition, DefinitionContent, Dimension, SCHEMA_VERSION, Scenario};
use crate::domain::json::check_json;
use crate::domain::limits::Limits;
use crate::domain::validation::{Checker, Length, TextRule, ValidationErrors, shorten};

/// A definition that may be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The name.
    pub name: String,
    /// What is asked, as given.
    pub content: DefinitionContent,
    /// The scenarios, given or made: at least one, with unique keys.
    pub scenarios: Vec<Scenario>,
}

impl CreateDefinition {
    /// Checks everything, then makes the scenarios. Paths begin with `input`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn check(self, limits: &Limits) -> Result<Checked, ValidationErrors> {
        let mut checker = Checker::new("input", limits.mistakes_max);
        checker.within("name", |c| c.text(&self.name, TextRule::name(Length::Chars(limits.name_max_chars))));
        let pieces =
            checker.within("content", |c| check_content(c, &self.content, self.scenarios.is_none(), limits));
        let scenarios = match self.scenarios {
            Some(given) => checker.within("scenarios", |c| check_given(c, given, limits)),
            None => pieces.map_or_else(Vec::new, |pieces| {
                let dimensions = self.content.dimensions.as_deref().unwrap_or_default();
                checker.within("content", |c| make(c, &Product::new(&pieces, dimensions), limits))
            }),
        };
        checker.finish()?;
        let mut checker = Checker::new("input", limits.mistakes_max);
        checker.within("scenarios", |c| check_payloads(c, &self.content, &scenarios, limits));
        checker.finish()?;
        Ok(Checked { name: self.name, content: self.content, scenarios })
    }
}

/// Checks what each probe's worker would be sent: its parts may be fine one by one and too much together.
fn check_payloads(c: &mut Checker, content: &DefinitionContent, scenarios: &[Scenario], limits: &Limits) {
    let followups = content.followups.iter().flatten().map(String::len).sum::<usize>();
    let shared = content.preamble.as_ref().map_or(0, String::len) + followups;
    for (i, scenario) in scenarios.iter().enumerate() {
        let own = scenario.key.len() + scenario.prompt.len() + scenario.dimensions.to_string().len();
        let bytes = shared + own;
        if bytes > limits.job_payload_max_bytes {
            c.item(i, |c| {
                c.error(format!(
                    "makes a job of {bytes} bytes with its preamble, follow-ups and dimensions: give at most {}",
                    limits.job_payload_max_bytes
                ));
            });
        }
    }
}

/// Checks the content; gives the pieces of the template when scenarios are to be made and can be.
fn check_content(
    c: &mut Checker,
    content: &DefinitionContent,
    make_scenarios: bool,
    limits: &Limits,
) -> Option<Vec<Piece>> {
    let body = TextRule::body(limits.prompt_max_bytes);
    if content.schema_version != SCHEMA_VERSION {
        c.within("schemaVersion", |c| {
            c.error(format!("is {}, which is unknown: give {SCHEMA_VERSION}", content.schema_version));
        });
    }
    if let Some(preamble) = &content.preamble {
        c.within("preamble", |c| c.text(preamble, body.or_blank()));
    }
    c.within("followups", |c| {
        check_followups(c, content.followups.as_deref().unwrap_or_default(), body, limits);
    });
    if let Some(scoring) = content.scoring {
        c.within("scoring", |c| {
            c.derived(&scoring);
            if scoring.min >= scoring.max {
                c.error(format!("has min {} and max {}: give a min below the max", scoring.min, scoring.max));
            }
        });
    }
    if let Some(params) = &content.params {
        c.within("params", |c| params.check(c));
    }
    if let Some(lifecycle) = &content.lifecycle {
        c.within("lifecycle", |c| c.derived(lifecycle));
    }
    let before = c.count();
    let dimensions = content.dimensions.as_deref().unwrap_or_default();
    c.within("dimensions", |c| check_dimensions(c, dimensions, limits));
    let pieces = c.within("template", |c| {
        let Some(template) = &content.template else {
            if make_scenarios {
                c.error("is missing: give a template, or give scenarios");
            }
            return None;
        };
        if !c.text(template, body) || !make_scenarios {
            return None;
        }
        template::parse(template).map_err(|problem| c.error(problem)).ok()
    })?;
    check_placeholders(c, &pieces, dimensions);
    (c.count() == before).then_some(pieces)
}

fn check_followups(c: &mut Checker, followups: &[String], body: TextRule, limits: &Limits) {
    if followups.len() > limits.followups_max {
        c.error(format!("has {} items: give at most {}", followups.len(), limits.followups_max));
        return;
    }
    for (i, followup) in followups.iter().enumerate() {
        c.item(i, |c| c.text(followup, body));
    }
}

fn check_dimensions(c: &mut Checker, dimensions: &[Dimension], limits: &Limits) {
    if dimensions.len() > limits.dimensions_max {
        c.error(format!("has {} items: give at most {}", dimensions.len(), limits.dimensions_max));
        return;
    }
    let rule = TextRule::name(Length::Bytes(limits.dimension_max_bytes));
    let mut names = HashSet::new();
    for (i, dimension) in dimensions.iter().enumerate() {
        c.item(i, |c| {
            c.within("name", |c| {
                c.text(&dimension.name, rule);
                if dimension.name.contains(['{', '}']) {
                    c.error(format!(
                        "is {}, which no placeholder can name: leave the braces out",
                        shorten(&dimension.name)
                    ));
                }
                if !names.insert(dimension.name.as_str()) {
                    c.error(format!("{} is there twice: give each dimension once", shorten(&dimension.name)));
                }
            });
            c.within("values", |c| check_values(c, &dimension.values, rule, limits));
        });
    }
}

fn check_values(c: &mut Checker, values: &[String], rule: TextRule, limits: &Limits) {
    if values.is_empty() {
        c.error("is empty: give at least one value");
    }
    if values.len() > limits.scenarios_max {
        c.error(format!("has {} items: give at most {}", values.len(), limits.scenarios_max));
        return;
    }
    let mut seen = HashSet::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        c.item(i, |c| {
            c.text(value, rule);
            if !seen.insert(value.as_str()) {
                c.error(format!("{} is there twice: give each value once", shorten(value)));
            }
        });
    }
}

/// Each placeholder needs a dimension, and each dimension a placeholder: one without would make the same
/// prompt several times, and the bill with it.
fn check_placeholders(c: &mut Checker, pieces: &[Piece], dimensions: &[Dimension]) {
    let mut placeholders = HashSet::new();
    for piece in pieces {
        if let Piece::Placeholder(name) = piece
            && placeholders.insert(name.as_str())
            && dimensions.iter().all(|d| d.name != *name)
        {
            c.within("template", |c| c.error(template::unknown_placeholder(name)));
        }
    }
    for (i, dimension) in dimensions.iter().enumerate() {
        if !placeholders.contains(dimension.name.as_str()) {
            c.within("dimensions", |c| {
                c.item(i, |c| {
                    c.error(format!(
                        "{} has no placeholder in the template, so every value would make the same prompt: \
                         put {{{}}} into the template, or leave the dimension out",
                        shorten(&dimension.name),
                        shorten(&dimension.name).trim_matches(['"', '…']),
                    ));
                });
            });
        }
    }
}

/// Makes the product unless it is too large.
fn make(c: &mut Checker, product: &Product<'_>, limits: &Limits) -> Vec<Scenario> {
    let size = product.size();
    let before = c.count();
    c.within("dimensions", |c| {
        if size.scenarios > limits.scenarios_max as u128 {
            c.error(format!(
                "make {} scenarios: give fewer values, at most {} scenarios",
                size.scenarios, limits.scenarios_max
            ));
        } else if size.total_bytes > u128::from(limits.definition_max_bytes) {
            c.error(format!(
                "make prompts and keys of up to {} bytes in all: at most {} bytes, so give fewer or shorter values, or a shorter template",
                size.total_bytes, limits.definition_max_bytes
            ));
        }
        if size.key_max_bytes > limits.scenario_key_max_bytes {
            c.error(format!(
                "make a key of {} bytes: at most {} bytes, so give shorter names and values, or scenarios with keys of their own",
                size.key_max_bytes, limits.scenario_key_max_bytes
            ));
        }
    });
    if size.prompt_max_bytes > limits.prompt_max_bytes {
        c.within("template", |c| {
            c.error(format!(
                "makes a prompt of {} bytes: at most {} bytes, so give a shorter template or shorter values",
                size.prompt_max_bytes, limits.prompt_max_bytes
            ));
        });
    }
    if c.count() == before { product.scenarios() } else { Vec::new() }
}

fn check_given(c: &mut Checker, mut scenarios: Vec<Scenario>, limits: &Limits) -> Vec<Scenario> {
    if scenarios.is_empty() {
        c.error("is empty: give at least one, or leave it out to make them from template and dimensions");
    }
    if scenarios.len() > limits.scenarios_max {
        c.error(format!("has {} items: give at most {}", scenarios.len(), limits.scenarios_max));
        return scenarios;
    }
    let total: u128 = scenarios.iter().map(|s| s.key.len() as u128 + s.prompt.len() as u128).sum();
    if total > u128::from(limits.definition_max_bytes) {
        c.error(format!(
            "have prompts and keys of {total} bytes in all: give at most {} bytes",
            limits.definition_max_bytes
        ));
    }
    let key_rule = TextRule::name(Length::Bytes(limits.scenario_key_max_bytes));
    let prompt_rule = TextRule::body(limits.prompt_max_bytes);
    let mut keys = HashSet::with_capacity(scenarios.len());
    for (i, scenario) in scenarios.iter().enumerate() {
        c.item(i, |c| {
            c.within("key", |c| {
                c.text(&scenario.key, key_rule);
                if !keys.insert(scenario.key.as_str()) {
                    c.error(format!("{} is there twice: give each key once", shorten(&scenario.key)));
                }
            });
            c.within("prompt", |c| c.text(&scenario.prompt, prompt_rule));
            c.within("dimensions", |c| check_given_dimensions(c, &scenario.dimensions, limits));
        });
    }
    for scenario in &mut scenarios {
        if scenario.dimensions.is_null() {
            scenario.dimensions = Value::Object(Map::new());
        }
    }
    scenarios
}

fn check_given_dimensions(c: &mut Checker, dimensions: &Value, limits: &Limits) {
    let map = match dimensions {
        Value::Null => return,
        Value::Object(map) => map,
        _ => return c.error("is no JSON object: give one of names with a value each"),
    };
    let before = c.count();
    check_json(c, dimensions, limits.metadata_max_bytes);
    if c.count() > before {
        return;
    }
    let name_rule = TextRule::name(Length::Bytes(limits.dimension_max_bytes));
    for (name, value) in map {
        if let Some(problem) = name_rule.problem(name) {
            c.error(format!("has a name that {problem}"));
        }
        if !(value.is_string() || value.is_number() || value.is_boolean()) {
            c.error(format!(
                "has {} with a value of no use: give a text, a number or a boolean",
                shorten(name)
            ));
        }
    }
}
