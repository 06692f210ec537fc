//! Reads variables and gathers mistakes.

use std::time::Duration;

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

    /// A duration such as `30s`; default, minimum and maximum are written the same way.
    pub(super) fn duration(&mut self, variable: &str, default: &str, min: &str, max: &str) -> Duration {
        let known = |text| duration(text).expect("the program's own durations can be read");
        let Some(text) = self.text(variable) else { return known(default) };
        match duration(&text) {
            Some(d) if (known(min)..=known(max)).contains(&d) => return d,
            Some(_) => {
                self.problem(
                    variable,
                    format!("{text} is out of range: give a duration from {min} to {max}"),
                );
            }
            None => self.problem(
                variable,
                format!(
                    "{text:?} is no duration: give a whole number and ms, s, m, h or d, such as {default}"
                ),
            ),
        }
        known(default)
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

/// Reads a whole number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms_each).map(Duration::from_millis)
}
