//! Gathering every mistake in an input, each with the path of the field it is in.

mod derived;
mod text;

use std::fmt::{self, Write as _};

pub use text::{Length, TextRule, shorten};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The path into the input, such as `input.content.dimensions[1].values`.
    pub field: String,
    /// What is wrong with the value, the limit, and the way out; never the whole value.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

/// The mistakes of an input; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationErrors {
    first: FieldError,
    others: Vec<FieldError>,
}

impl ValidationErrors {
    /// A single mistake.
    #[must_use]
    pub fn one(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { first: FieldError { field: field.into(), message: message.into() }, others: Vec::new() }
    }

    /// The mistake that was met first.
    #[must_use]
    pub const fn first(&self) -> &FieldError {
        &self.first
    }

    /// All mistakes, in the order they were met.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.others.len() {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more mistake)"),
            n => write!(f, " (and {n} more mistakes)"),
        }
    }
}

impl std::error::Error for ValidationErrors {}

/// Walks an input and gathers mistakes. It knows where it is: [`Checker::within`] and [`Checker::item`] go
/// down, and come back up by themselves.
#[derive(Debug)]
pub struct Checker {
    path: String,
    errors: Vec<FieldError>,
    errors_max: usize,
    unlisted: usize,
}

impl Checker {
    /// Starts at `root` (an argument's name). At most `errors_max` mistakes are listed; the rest are counted,
    /// so that a bad list of 100,000 items cannot make an answer of megabytes.
    #[must_use]
    pub fn new(root: &str, errors_max: usize) -> Self {
        Self { path: root.to_owned(), errors: Vec::new(), errors_max: errors_max.max(1), unlisted: 0 }
    }

    /// Runs `check` one field further down.
    pub fn within<T>(&mut self, field: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.path.len();
        if parent > 0 {
            self.path.push('.');
        }
        self.path.push_str(field);
        let outcome = check(self);
        self.path.truncate(parent);
        outcome
    }

    /// Runs `check` at one item of the list where the checker is.
    pub fn item<T>(&mut self, index: usize, check: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.path.len();
        let _ = write!(self.path, "[{index}]"); // writing to a String cannot fail
        let outcome = check(self);
        self.path.truncate(parent);
        outcome
    }

    /// Notes a mistake where the checker is.
    pub fn error(&mut self, message: impl Into<String>) {
        if self.errors.len() < self.errors_max {
            self.errors.push(FieldError { field: self.path.clone(), message: message.into() });
        } else {
            self.unlisted += 1;
        }
    }

    /// How many mistakes were met; compare before and after to learn whether a part is sound.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.errors.len() + self.unlisted
    }

    /// The end.
    ///
    /// # Errors
    /// The mistakes, when there was one.
    pub fn finish(mut self) -> Result<(), ValidationErrors> {
        if self.unlisted > 0 {
            let message =
                format!("has {} more mistakes that are not listed: put these right first", self.unlisted);
            self.errors.push(FieldError { field: self.path, message });
        }
        let mut errors = self.errors.into_iter();
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(ValidationErrors { first, others: errors.collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_carries_the_path_where_it_was_met() {
        let mut checker = Checker::new("input", 10);
        checker.within("content", |c| {
            c.within("dimensions", |c| c.item(1, |c| c.within("values", |c| c.error("is empty"))));
            c.error("is odd");
        });
        let errors = checker.finish().unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["input.content.dimensions[1].values", "input.content"]);
        assert_eq!(errors.to_string(), "input.content.dimensions[1].values is empty (and 1 more mistake)");
    }

    #[test]
    fn mistakes_beyond_the_limit_are_counted_not_listed() {
        let mut checker = Checker::new("", 2);
        for i in 0..5 {
            checker.within("list", |c| c.item(i, |c| c.error("is wrong")));
        }
        assert_eq!(checker.count(), 5);
        let errors = checker.finish().unwrap_err();
        assert_eq!(errors.iter().count(), 3);
        assert!(errors.iter().last().unwrap().message.contains("3 more"));
    }

    #[test]
    fn nothing_wrong_is_no_error() {
        assert_eq!(Checker::new("input", 1).finish(), Ok(()));
    }
}
