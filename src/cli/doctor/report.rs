//! What was found, for people and for programs.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It runs, but somebody should know.
    Warning,
    /// It does not run, or may lose jobs.
    Error,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
}

/// Everything that was found, in the order of looking.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// As it should be.
    pub fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Ok, message: message.into() });
    }

    /// It runs, but somebody should know.
    pub fn warning(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Warning, message: message.into() });
    }

    /// It does not run, or may lose jobs.
    pub fn error(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Error, message: message.into() });
    }

    /// Whether there is no error.
    pub fn is_ok(&self) -> bool {
        self.count(Level::Error) == 0
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|f| f.level == level).count()
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({ "ok": self.is_ok(), "version": env!("CARGO_PKG_VERSION"), "findings": self.0 })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "WARNING",
                Level::Error => "ERROR",
            };
            writeln!(f, "{level:<8}{:<13}{}", finding.check, finding.message)?;
        }
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warning));
        writeln!(f, "\nErrors: {errors}, warnings: {warnings}.")
    }
}
