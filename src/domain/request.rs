//! Checks of the small arguments: reasons, pages, searches, filters.

use super::job::JobKind;
use super::limits::Limits;
use super::validation::{Checker, Length, TextRule, ValidationErrors, shorten};

/// The most of a run's recent tasks that are shown.
pub const RECENT_TASKS_MAX: i32 = 100;

/// The fastest redrive, in jobs a minute.
pub const REDRIVE_RATE_MAX: i32 = 1_000_000;

fn check_one<T>(
    field: &str,
    limits: &Limits,
    check: impl FnOnce(&mut Checker) -> T,
) -> Result<T, ValidationErrors> {
    let mut checker = Checker::new(field, limits.mistakes_max);
    let outcome = check(&mut checker);
    checker.finish().map(|()| outcome)
}

/// The reason of a pause; a blank one counts as none.
///
/// # Errors
/// One that is too long or not one line of text.
pub fn pause_reason(reason: Option<String>, limits: &Limits) -> Result<Option<String>, ValidationErrors> {
    let Some(reason) = reason.filter(|r| !r.trim().is_empty()) else { return Ok(None) };
    check_one("reason", limits, |c| {
        c.text(&reason, TextRule::name(Length::Chars(limits.reason_max_chars)));
    })?;
    Ok(Some(reason))
}

/// Notes about a dead letter, of any number of lines; blank ones count as none.
///
/// # Errors
/// Notes that are too long or cannot be stored.
pub fn notes(notes: Option<String>, limits: &Limits) -> Result<Option<String>, ValidationErrors> {
    let Some(notes) = notes.filter(|n| !n.trim().is_empty()) else { return Ok(None) };
    check_one("notes", limits, |c| c.text(&notes, TextRule::prose(limits.notes_max_chars)))?;
    Ok(Some(notes))
}

/// How many redriven jobs become due each minute.
///
/// # Errors
/// A number outside 1 to [`REDRIVE_RATE_MAX`].
pub fn redrive_rate(per_minute: Option<i32>) -> Result<(), ValidationErrors> {
    match per_minute {
        Some(rate) if !(1..=REDRIVE_RATE_MAX).contains(&rate) => {
            let message =
                format!("is {rate}: give 1 to {REDRIVE_RATE_MAX}, or leave it out to redrive all at once");
            Err(ValidationErrors::one("ratePerMinute", message))
        }
        _ => Ok(()),
    }
}

/// The length of a page: `first`, capped to the longest page.
///
/// # Errors
/// One below 1.
pub fn page_length(first: i32, limits: &Limits) -> Result<i64, ValidationErrors> {
    if first < 1 {
        let message = format!("is {first}, which makes no page: give 1 to {}", limits.page_max);
        return Err(ValidationErrors::one("first", message));
    }
    Ok(i64::from(first).min(limits.page_max))
}

/// How many recent tasks to show.
///
/// # Errors
/// A number outside 0 to [`RECENT_TASKS_MAX`].
pub fn recent_tasks_limit(limit: i32) -> Result<i64, ValidationErrors> {
    if (0..=RECENT_TASKS_MAX).contains(&limit) {
        return Ok(i64::from(limit));
    }
    let message = format!("is {limit}, which is out of range: give a number from 0 to {RECENT_TASKS_MAX}");
    Err(ValidationErrors::one("limit", message))
}

/// A text to search for; a blank one counts as none.
///
/// # Errors
/// One that is too long or not one line of text.
pub fn search_text(search: Option<String>, limits: &Limits) -> Result<Option<String>, ValidationErrors> {
    let Some(search) = search.filter(|s| !s.trim().is_empty()) else { return Ok(None) };
    check_one("search", limits, |c| c.text(&search, TextRule::name(Length::Chars(limits.name_max_chars))))?;
    Ok(Some(search))
}

/// Notes what is wrong with `value`, a filter's text at `field`. What nothing can equal is a mistake, not an
/// empty list.
pub fn filter_text(checker: &mut Checker, field: &str, value: Option<&str>, max: Length) {
    if let Some(value) = value {
        checker.within(field, |c| c.text(value, TextRule::name(max)));
    }
}

/// The kinds of jobs that a filter names, a list where the checker is.
pub fn filter_kinds(checker: &mut Checker, types: &[String]) -> Vec<JobKind> {
    let mut kinds = Vec::new();
    for (i, text) in types.iter().enumerate() {
        match text.parse::<JobKind>() {
            Ok(kind) if kinds.contains(&kind) => {}
            Ok(kind) => kinds.push(kind),
            Err(_) => checker.item(i, |c| {
                let known = JobKind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
                c.error(format!("{} is no type of job: give {known}", shorten(text)));
            }),
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Numbers;

    fn limits() -> Limits {
        Numbers::default().limits()
    }

    #[test]
    fn pages_are_capped_above_and_refused_below() {
        assert_eq!(page_length(1, &limits()), Ok(1));
        assert_eq!(page_length(100, &limits()), Ok(100));
        assert_eq!(page_length(i32::MAX, &limits()), Ok(100));
        assert_eq!(page_length(0, &limits()).unwrap_err().first().field, "first");
        assert!(page_length(i32::MIN, &limits()).is_err());
    }

    #[test]
    fn recent_tasks_are_0_to_100() {
        assert_eq!((recent_tasks_limit(0), recent_tasks_limit(100)), (Ok(0), Ok(100)));
        assert!(recent_tasks_limit(-1).is_err() && recent_tasks_limit(101).is_err());
    }

    #[test]
    fn notes_may_have_lines_and_rates_have_bounds() {
        assert_eq!(notes(Some(" \n".into()), &limits()), Ok(None));
        assert_eq!(notes(Some("a\nb".into()), &limits()), Ok(Some("a\nb".into())));
        assert_eq!(notes(Some("x".repeat(4_001)), &limits()).unwrap_err().first().field, "notes");
        assert!(notes(Some("a\0".into()), &limits()).is_err());
        assert!([None, Some(1), Some(REDRIVE_RATE_MAX)].into_iter().all(|rate| redrive_rate(rate).is_ok()));
        assert!([0, -1, REDRIVE_RATE_MAX + 1].into_iter().all(|rate| redrive_rate(Some(rate)).is_err()));
    }

    #[test]
    fn texts_have_limits_and_blank_is_none() {
        assert_eq!(pause_reason(Some("  ".into()), &limits()), Ok(None));
        assert_eq!(pause_reason(Some("ü".repeat(500)), &limits()), Ok(Some("ü".repeat(500))));
        assert_eq!(pause_reason(Some("x".repeat(501)), &limits()).unwrap_err().first().field, "reason");
        assert!(pause_reason(Some("a\0".into()), &limits()).is_err());
        assert_eq!(search_text(Some("tone".into()), &limits()), Ok(Some("tone".into())));
        assert!(search_text(Some("x".repeat(201)), &limits()).is_err());
    }

    #[test]
    fn filters_name_what_exists() {
        let mut checker = Checker::new("filter", 10);
        let types = ["probe:scenario", "probe:scenario", "probe"].map(str::to_owned);
        let kinds = checker.within("type", |c| filter_kinds(c, &types));
        filter_text(&mut checker, "modelId", Some("a\nb"), Length::Bytes(300));
        filter_text(&mut checker, "errorCode", None, Length::Chars(10));
        assert_eq!(kinds, [JobKind::ProbeScenario]);
        let errors = checker.finish().unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["filter.type[2]", "filter.modelId"]);
    }
}
