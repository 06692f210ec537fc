//! What results and errors hold: checked once here, kept as the worker wrote it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::job::{Spent, WorkerError};
use crate::domain::{Consequence, ErrorCode, JobKind};

/// The longest error message that is kept, in characters.
pub const MESSAGE_MAX_CHARS: usize = 4_000;

/// A checked result.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Of a probe.
    Transcript(Box<Transcript>),
    /// Of an analysis.
    Analysis(Box<Analysis>),
    /// Of an analysis whose stored result is what it would compute. Holds `{"unchanged": true}`, as the database knows it.
    Unchanged(Box<RawValue>),
}

/// Token counts. A worker may leave out what its provider does not report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Tokens sent.
    pub input: Option<u64>,
    /// Tokens received.
    pub output: Option<u64>,
    /// Tokens of reasoning.
    pub reasoning: Option<u64>,
    /// Tokens read from the provider's cache.
    pub cache_read: Option<u64>,
    /// Tokens written to the provider's cache.
    pub cache_write: Option<u64>,
}

/// What a probe returned.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// How large the whole `transcript` object is, in bytes.
    pub bytes: usize,
    /// The `turns` array as the worker wrote it, fields unknown here included.
    pub turns: Box<RawValue>,
    /// How many turns.
    pub turn_count: usize,
    /// Milliseconds that the provider took over all turns.
    pub latency_ms: i32,
    /// Tokens over all turns.
    pub usage: Usage,
    /// The `usage` object as the worker wrote it.
    pub raw_usage: Option<Box<RawValue>>,
    /// The model's version as the provider reported it.
    pub model_version: Option<String>,
    /// The score that the worker found.
    pub score: Option<i32>,
    /// What it cost in US dollars; never negative. `None` when no price is known.
    pub cost_usd: Option<Decimal>,
    /// When the worker began.
    pub started_at: DateTime<Utc>,
    /// When the worker ended.
    pub completed_at: DateTime<Utc>,
}

/// What an analysis returned.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The whole `analysis` object as the worker wrote it.
    pub raw: Box<RawValue>,
    /// How much of the run it rests on.
    pub coverage: Coverage,
}

/// How much of a run an analysis rests on, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Coverage {
    /// Records that a complete run has.
    pub expected: u64,
    /// Records that were used.
    pub used: u64,
    /// Records of failed probes.
    pub failed: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TranscriptShape<'a> {
    #[serde(borrow)]
    turns: &'a RawValue,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    model_version: Option<String>,
    score: Option<i32>,
    cost_usd: Option<String>,
    started_at: DateTime<Utc>,
    completed_at: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "most is read only to be checked")]
struct TurnShape {
    n: u32,
    label: Option<String>,
    prompt: IsText,
    response: IsText,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    latency_ms: Option<f64>,
}

/// Accepts a string and keeps nothing of it: prompts and answers are long.
struct IsText;

impl<'de> Deserialize<'de> for IsText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IsText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, _: &str) -> Result<IsText, E> {
                Ok(IsText)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "warnings and methods are read only to be checked")]
struct AnalysisShape {
    coverage: Coverage,
    warnings: Vec<IgnoredAny>,
    methods: std::collections::BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorShape {
    code: String,
    message: String,
    retryable: Option<bool>,
    retry_after_ms: Option<f64>,
    http_status: Option<u16>,
    detail: Option<serde_json::Value>,
}

/// What the body of a `result` holds, unread.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ResultBody<'a> {
    pub transcript: Option<&'a RawValue>,
    pub analysis: Option<&'a RawValue>,
    /// The stored analysis still holds.
    pub unchanged: bool,
}

/// Checks the body of a `result` against what `kind` must return. That nothing has changed is only taken from a worker
/// that was told what was there before.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn result(kind: JobKind, may_be_unchanged: bool, body: ResultBody<'_>) -> Result<Payload, String> {
    match (kind.is_analysis(), body.transcript, body.analysis) {
        (true, None, None) if body.unchanged && may_be_unchanged => {
            let raw = serde_json::value::to_raw_value(&serde_json::json!({ "unchanged": true }));
            raw.map(Payload::Unchanged).map_err(|e| e.to_string())
        }
        (false, Some(raw), None) => transcript_of(raw).map(|t| Payload::Transcript(Box::new(t))),
        (true, None, Some(raw)) => {
            let shape: AnalysisShape =
                serde_json::from_str(raw.get()).map_err(|e| format!("`analysis` has a wrong shape: {e}"))?;
            Ok(Payload::Analysis(Box::new(Analysis { raw: raw.to_owned(), coverage: shape.coverage })))
        }
        (false, ..) => Err("the result of a probe must hold `transcript` and no `analysis`".to_owned()),
        (true, ..) => Err("the result of an analysis must hold `analysis` and no `transcript`".to_owned()),
    }
}

fn transcript_of(raw: &RawValue) -> Result<Transcript, String> {
    let shape: TranscriptShape<'_> =
        serde_json::from_str(raw.get()).map_err(|e| format!("`transcript` has a wrong shape: {e}"))?;
    let turns: Vec<TurnShape> = serde_json::from_str(shape.turns.get())
        .map_err(|e| format!("`transcript.turns` has a wrong shape: {e}"))?;
    // The database takes it as it is. Whoever reads it takes it apart, so all of it must be readable.
    serde_json::from_str::<serde_json::Value>(shape.turns.get())
        .map_err(|e| format!("`transcript.turns` cannot be read: {e}"))?;
    let usage: Option<Usage> = shape
        .usage
        .map(|usage| serde_json::from_str(usage.get()))
        .transpose()
        .map_err(|e| format!("`transcript.usage` has a wrong shape: {e}"))?;
    let cost_usd = shape.cost_usd.as_deref().map(|text| money("transcript.costUsd", text)).transpose()?;
    Ok(Transcript {
        bytes: raw.get().len(),
        turns: shape.turns.to_owned(),
        turn_count: turns.len(),
        latency_ms: latency_ms(&turns)?,
        usage: usage.unwrap_or_default(),
        raw_usage: shape.usage.map(ToOwned::to_owned),
        model_version: shape.model_version,
        score: shape.score,
        cost_usd,
        started_at: shape.started_at,
        completed_at: shape.completed_at,
    })
}

/// The sum over all turns; more than 24 days count as 24 days.
fn latency_ms(turns: &[TurnShape]) -> Result<i32, String> {
    let sum: f64 = turns.iter().filter_map(|turn| turn.latency_ms).sum();
    if sum < 0.0 {
        return Err(format!("`transcript.turns` took {sum} ms in all: `latencyMs` must not be negative"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
    Ok(sum.round() as i32)
}

fn money(field: &str, text: &str) -> Result<Decimal, String> {
    Decimal::from_str(text)
        .or_else(|_| Decimal::from_scientific(text))
        .ok()
        .filter(|amount| !amount.is_sign_negative() || amount.is_zero())
        .ok_or_else(|| format!("`{field}` is {text:?}: it must be a decimal string, not negative"))
}

/// The body of an `error`: what it says, and whether it is the worker's answer to a `cancel`.
pub(super) struct ErrorBody {
    pub error: WorkerError,
    pub says_cancelled: bool,
}

/// Checks the body of an `error`.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn error(
    error: Option<&str>,
    usage: Option<&RawValue>,
    cost_usd: Option<&RawValue>,
) -> Result<ErrorBody, String> {
    let text = error.ok_or("an error must hold `error`")?;
    let shape: ErrorShape =
        serde_json::from_str(text).map_err(|e| format!("`error` has a wrong shape: {e}"))?;
    let retry_after = match shape.retry_after_ms {
        None => None,
        Some(ms) if ms >= 0.0 => Duration::try_from_secs_f64(ms / 1_000.0).ok(),
        Some(ms) => return Err(format!("`error.retryAfterMs` is {ms}: it must not be negative")),
    };
    let says_cancelled = shape.code == ErrorCode::Cancelled.as_str();
    let mut message = shape.message;
    let code = match shape.code.parse::<ErrorCode>() {
        Ok(code) if code.worker_may_report() => code,
        Ok(code) => {
            message = format!("the worker reported {code}, which only the node may: {message}");
            ErrorCode::Unknown
        }
        Err(unknown) => {
            message = format!("{unknown}: {message}");
            ErrorCode::Unknown
        }
    };
    let may_help =
        matches!(code.consequence(), Consequence::Retry | Consequence::RetryOnce | Consequence::Throttle);
    let error = WorkerError {
        code,
        message: clean(&message),
        retryable: shape.retryable.unwrap_or(may_help),
        retry_after,
        http_status: shape.http_status,
        detail: shape.detail,
        spent: spent(usage, cost_usd)?,
    };
    Ok(ErrorBody { error, says_cancelled })
}

/// What the worker says was used; either may be missing or null.
pub(super) fn spent(usage: Option<&RawValue>, cost_usd: Option<&RawValue>) -> Result<Spent, String> {
    let cost_usd = match cost_usd {
        None => None,
        Some(raw) => serde_json::from_str::<Option<String>>(raw.get())
            .map_err(|_| format!("`costUsd` is {}: it must be a decimal string or null", raw.get()))?,
    };
    Ok(Spent {
        usage: usage.filter(|raw| raw.get() != "null").map(ToOwned::to_owned),
        cost_usd: cost_usd.as_deref().map(|text| money("costUsd", text)).transpose()?,
    })
}

/// Bounds a message and takes out what PostgreSQL cannot store.
fn clean(message: &str) -> String {
    message.chars().take(MESSAGE_MAX_CHARS).map(|c| if c == '\0' { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
