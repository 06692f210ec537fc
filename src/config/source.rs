//! Reads variables and gathers mistakes.

use super::Problem;

/// Reads variables and gathers mistakes.
pub(super) struct Source<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<Problem>,
}

impl Source<'_> {
    pub(super) fn problem(&mut self, variable: &str, message: impl Into<String>) {
        self.problems.push(Problem { variable: variable.to_owned(), message: message.into() });
    }

    pub(super) fn text(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    pub(super) fn optional_number(&mut self, variable: &str, min: i128, max: i128) -> Option<i128> {
        let text = self.text(variable)?;
        match text.parse::<i128>() {
            Ok(n) if (min..=max).contains(&n) => Some(n),
            Ok(n) => {
                self.problem(variable, format!("{n} is out of range: give a number from {min} to {max}"));
                None
            }
            Err(_) => {
                self.problem(variable, format!("{text:?} is no whole number: give one from {min} to {max}"));
                None
            }
        }
    }

    pub(super) fn number(&mut self, variable: &str, default: i128, min: i128, max: i128) -> i128 {
        self.optional_number(variable, min, max).unwrap_or(default)
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, variable: &str, default: T, expected: &str) -> T {
        match self.text(variable) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| {
                self.problem(variable, format!("{text:?} cannot be used: give {expected}"));
                default
            }),
        }
    }
}
