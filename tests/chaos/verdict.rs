//! What a test found: figures, and what is wrong with them.

use std::fmt::{Display, Write};
use std::time::Duration;

/// The figures of one test, in the order of their printing, and the criteria that do not hold.
#[derive(Debug, Default)]
pub struct Verdict {
    figures: Vec<(&'static str, String)>,
    wrong: Vec<String>,
    late: Vec<String>,
    unjudged: Vec<String>,
    skipped: Option<String>,
}

/// Reasons that are printed; the rest is counted.
const REASONS_MAX: usize = 20;

impl Verdict {
    /// A test that could not be carried out.
    pub fn broken(reason: String) -> Self {
        Self { wrong: vec![reason], ..Self::default() }
    }

    /// A test that this machine cannot carry out, and what it lacks.
    pub fn skipped(lacks: String) -> Self {
        Self { skipped: Some(lacks), ..Self::default() }
    }

    /// Adds a figure to the line.
    pub fn figure(&mut self, name: &'static str, value: impl Display) {
        self.figures.push((name, value.to_string()));
    }

    /// Notes a criterion that must hold.
    pub fn must(&mut self, holds: bool, otherwise: impl Display) {
        if !holds {
            self.wrong.push(otherwise.to_string());
        }
    }

    /// Notes a time that must be kept.
    pub fn timely(&mut self, holds: bool, otherwise: impl Display) {
        if !holds {
            self.late.push(otherwise.to_string());
        }
    }

    /// Decides about the times: on a machine that others kept busy they are said, and are nobody's fault.
    pub fn judge_times(&mut self, is_busy: bool) {
        let late = std::mem::take(&mut self.late);
        if is_busy && !late.is_empty() {
            self.figure("times", "UNJUDGED");
            self.unjudged = late;
        } else {
            self.wrong.extend(late);
        }
    }

    /// Adds a figure that must be 0, and says what stands behind it if it is not.
    pub fn none(&mut self, name: &'static str, found: &[String]) {
        self.figure(name, found.len());
        self.wrong.extend(found.iter().map(|what| format!("{name}: {what}")));
    }

    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The line, and below it what is wrong.
    pub fn line(&self, id: &str, seed: u64, took: Duration) -> String {
        if let Some(lacks) = &self.skipped {
            return format!("{id} seed={seed} SKIPPED: {lacks}\n");
        }
        let mut text = format!("{id} seed={seed}");
        for (name, value) in &self.figures {
            write!(text, " {name}={value}").expect("a string takes everything");
        }
        let word = if self.passed() { "PASS" } else { "FAIL" };
        writeln!(text, " took_s={:.0} {word}", took.as_secs_f64()).expect("a string takes everything");
        for reason in &self.unjudged {
            writeln!(text, "   others kept this machine busy: {reason}").expect("a string takes everything");
        }
        for reason in self.wrong.iter().take(REASONS_MAX) {
            writeln!(text, "   {reason}").expect("a string takes everything");
        }
        if self.wrong.len() > REASONS_MAX {
            writeln!(text, "   and {} more", self.wrong.len() - REASONS_MAX)
                .expect("a string takes everything");
        }
        text
    }
}
