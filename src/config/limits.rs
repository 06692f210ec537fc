//! Limits on providers and models, as declared at the start.

use super::example::Setting;
use super::source::Source;
use crate::domain::rate_limit::{Ceilings, check_limit_name};

const VARIABLE: &str = "RUNLANE_LIMITS";
const EXAMPLE: &str = "openai inFlight=50 requestsPerMinute=500; openai/gpt-5 tokensPerMinute=200000";

/// Reads what is declared: each limit's name and its ceilings.
pub(super) fn declared(source: &mut Source<'_>) -> Vec<(String, Ceilings)> {
    let Some(text) = source.text(VARIABLE) else { return Vec::new() };
    let mut limits: Vec<(String, Ceilings)> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match one(part) {
            Ok((name, _)) if limits.iter().any(|(other, _)| *other == name) => {
                source.problem(VARIABLE, format!("{name} is declared twice: put its ceilings together"));
            }
            Ok(limit) => limits.push(limit),
            Err(problem) => source.problem(VARIABLE, problem),
        }
    }
    limits
}

fn one(text: &str) -> Result<(String, Ceilings), String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    check_limit_name(name)?;
    let mut ceilings = Ceilings::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let slot = match key {
            "inFlight" => &mut ceilings.in_flight,
            "requestsPerMinute" => &mut ceilings.requests_per_minute,
            "tokensPerMinute" => &mut ceilings.tokens_per_minute,
            _ => {
                return Err(format!(
                    "{word:?} of {name} cannot be read: give inFlight=N, requestsPerMinute=N or tokensPerMinute=N"
                ));
            }
        };
        let number = value.parse::<i32>().ok().filter(|n| *n >= 1);
        *slot = Some(number.ok_or_else(|| {
            format!("{value:?} of {name}'s {key} is no number: give one from 1 to {}", i32::MAX)
        })?);
    }
    if ceilings == Ceilings::default() {
        return Err(format!("{name} has no ceiling: write it such as {EXAMPLE:?}"));
    }
    Ok((name.to_owned(), ceilings))
}

pub(super) fn setting() -> Setting {
    Setting {
        variable: VARIABLE,
        default: String::new(),
        range: format!("limits separated by semicolons, such as {EXAMPLE}"),
        doc: "Limits on providers and models that all nodes share. An admin's setLimit wins over what is declared here.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, Ceilings)>, Vec<String>) {
        let lookup = |_: &str| Some(text.to_owned());
        let mut source = Source { lookup: &lookup, problems: Vec::new() };
        let limits = declared(&mut source);
        (limits, source.problems.into_iter().map(|p| p.message).collect())
    }

    #[test]
    fn the_example_can_be_read() {
        let (limits, problems) = read(EXAMPLE);
        assert_eq!(problems, Vec::<String>::new());
        let openai = Ceilings { in_flight: Some(50), requests_per_minute: Some(500), ..Ceilings::default() };
        let model = Ceilings { tokens_per_minute: Some(200_000), ..Ceilings::default() };
        assert_eq!(limits, [("openai".to_owned(), openai), ("openai/gpt-5".to_owned(), model)]);
    }

    #[test]
    fn every_mistake_is_named() {
        let (limits, problems) = read(
            "opnai inFlight=1; openai inFlight=0; openai requests=5; openai; mock inFlight=1; mock inFlight=2; mock/ inFlight=1",
        );
        assert_eq!(limits.len(), 1);
        let parts =
            ["neither a provider nor a model", "\"0\"", "requests=5", "no ceiling", "twice", "no model id"];
        assert_eq!(problems.len(), parts.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{problem}");
        }
    }
}
