//! The price table: the program's own, or the file that replaces it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::Deserialize;

use super::example::Setting;
use super::source::Source;
use crate::domain::ModelId;
use crate::domain::prices::{PriceEntry, PriceTable, Prices};

const VARIABLE: &str = "RUNLANE_PRICES_FILE";
const OWN: &str = include_str!("../../schema/prices.toml");
/// A larger file is no price table.
const FILE_MAX_BYTES: u64 = 4_194_304;
/// Digits before and after the point of a price, as the worker protocol has them.
const DIGITS_MAX: usize = 12;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    as_of: String,
    source: String,
    #[serde(default)]
    price: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    models: Vec<String>,
    input: String,
    output: String,
    reasoning: Option<String>,
    cache_read: Option<String>,
    cache_write: Option<String>,
    as_of: Option<String>,
    source: Option<String>,
}

/// The table that the configuration names.
pub(super) fn price_table(source: &mut Source<'_>) -> Arc<PriceTable> {
    let Some(path) = source.text(VARIABLE) else {
        let own = parse(OWN).unwrap_or_else(|mistakes| panic!("the program's own prices: {mistakes:?}"));
        return Arc::new(own);
    };
    let read = read(Path::new(&path)).map_err(|mistake| vec![mistake]);
    let table = read.and_then(|text| parse(&text)).unwrap_or_else(|mistakes| {
        for mistake in mistakes {
            source.problem(VARIABLE, format!("{path}: {mistake}"));
        }
        PriceTable::default()
    });
    Arc::new(table)
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable =
        |e: std::io::Error| format!("cannot be read ({e}): give a file such as schema/prices.toml");
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_MAX_BYTES {
        return Err(format!("has {bytes} bytes: give a price table of at most {FILE_MAX_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads a table; every mistake with its place.
fn parse(text: &str) -> Result<PriceTable, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = 1 + e.span().map_or(0, |span| text[..span.start].matches('\n').count());
        vec![format!("line {line}: {}", e.message())]
    })?;
    let mut mistakes = Vec::new();
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for (i, row) in file.price.iter().enumerate() {
        let place =
            format!("price {}{}", i + 1, row.models.first().map_or(String::new(), |m| format!(" ({m})")));
        let mut note = |what: String| mistakes.push(format!("{place}: {what}"));
        if row.models.is_empty() {
            note("models is empty: give at least one model id or provider/prefix*".to_owned());
        }
        let day = date(row.as_of.as_deref().unwrap_or(&file.as_of)).map_err(&mut note);
        let from = row.source.as_deref().unwrap_or(&file.source).trim();
        if from.is_empty() {
            note("source is empty: say where the numbers come from".to_owned());
        }
        let mut required = |name: &str, text: &str| price(name, text).map_err(&mut note).ok();
        let (input, output) = (required("input", &row.input), required("output", &row.output));
        let mut optional =
            |name: &str, text: &Option<String>| text.as_deref().and_then(|t| required(name, t));
        let reasoning = optional("reasoning", &row.reasoning);
        let cache_read = optional("cacheRead", &row.cache_read);
        let cache_write = optional("cacheWrite", &row.cache_write);
        for pattern in &row.models {
            if let Err(what) = check_pattern(pattern) {
                note(what);
            } else if !seen.insert(pattern) {
                note(format!("{pattern} has a price already: give each model once"));
            }
            if let (Ok(as_of), Some(input), Some(output)) = (day, input, output) {
                let prices = Prices { input, output, reasoning, cache_read, cache_write };
                entries.push(PriceEntry { pattern: pattern.clone(), prices, as_of, source: from.to_owned() });
            }
        }
    }
    if mistakes.is_empty() { Ok(PriceTable::new(entries)) } else { Err(mistakes) }
}

fn date(text: &str) -> Result<NaiveDate, String> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map_err(|_| format!("asOf {text:?} is no day: give one such as 2026-01-31"))
}

fn price(name: &str, text: &str) -> Result<Decimal, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| (1..=DIGITS_MAX).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!(
            "{name} {text:?} is no price: give US dollars per million tokens as a text such as \"0.25\""
        ));
    }
    text.parse().map_err(|_| format!("{name} {text:?} is too large"))
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    if start.contains('*') {
        return Err(format!("{pattern:?} has a * that is not its end: give an exact id or provider/prefix*"));
    }
    // A beginning is completed, so that provider/* is fine.
    let sample = if start.len() < pattern.len() { format!("{start}x") } else { pattern.to_owned() };
    sample.parse::<ModelId>().map(drop).map_err(|e| format!("a pattern {e}"))
}

/// The row of `.env.example`.
pub(super) fn setting() -> Setting {
    Setting {
        variable: VARIABLE,
        default: String::new(),
        range: "a file of the form of schema/prices.toml".to_owned(),
        doc: "Prices of models that replace the program's own. They hold for runs that are started from then on.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_prices_can_be_read_and_the_mock_has_none() {
        let table = parse(OWN).unwrap();
        assert!(table.entries().len() > 20);
        assert_eq!(table.find("openai/gpt-4o-mini").unwrap().prices.input, "0.15".parse().unwrap());
        assert_eq!(table.find("mock/echo"), None);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let text = r#"
            asOf = "yesterday"
            source = "a list"
            [[price]]
            models = ["mock/a", "nobody/x", "mock/a", "mock/*-b"]
            input = "1,5"
            output = "-2"
            asOf = "2026-01-31"
            [[price]]
            models = []
            input = "1"
            output = "2.1234567890123"
            source = " "
        "#;
        let mistakes = parse(text).unwrap_err();
        let expected = [
            "price 1 (mock/a): input \"1,5\"",
            "price 1 (mock/a): output \"-2\"",
            "price 1 (mock/a): a pattern \"nobody/x\" names an unknown provider",
            "price 1 (mock/a): mock/a has a price already",
            "price 1 (mock/a): \"mock/*-b\" has a * that is not its end",
            "price 2: models is empty",
            "price 2: asOf \"yesterday\" is no day",
            "price 2: source is empty",
            "price 2: output \"2.1234567890123\" is no price",
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, start) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(start), "{mistake}, not {start}");
        }
    }

    #[test]
    fn what_is_no_toml_or_has_unknown_fields_is_told_with_its_line() {
        let wrong = |text: &str| parse(text).unwrap_err().remove(0);
        let message = wrong("asOf = \"2026-01-31\"\nsource = \"x\"\ncurrency = \"EUR\"\n");
        assert!(message.starts_with("line 3") && message.contains("currency"), "{message}");
        assert!(wrong("asOf = \"2026-01-31\"\nsource =\n").starts_with("line 2"));
    }
}
