//! Dead letters on a terminal.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::cli::output::{lines, table};
use crate::domain::dead_letter::{DeadLetter, DeadLetterReason, Lookalikes};
use crate::domain::page::{Page, cursor};

/// Characters of a message that a table shows.
const MESSAGE_SHOWN: usize = 60;

/// Everything of a dead letter.
pub fn as_json(entry: &DeadLetter) -> Value {
    json!({
        "id": entry.id.to_string(), "jobId": entry.job_id.to_string(), "epoch": entry.epoch,
        "runId": entry.run_id, "definitionId": entry.definition_id, "owner": entry.owner,
        "type": entry.kind.as_str(), "modelId": entry.model, "reason": entry.reason.as_str(),
        "status": entry.status.as_str(), "errorCode": entry.error_code, "errorMessage": entry.error_message,
        "fingerprint": entry.fingerprint, "originalState": entry.original_state.as_str(),
        "snapshot": entry.snapshot, "attempts": entry.attempts, "metadata": entry.metadata,
        "createdAt": entry.created_at, "resolvedAt": entry.resolved_at, "resolvedBy": entry.resolved_by,
        "notes": entry.notes, "redrivenAt": entry.redriven_at,
    })
}

/// Dead letters that look the same.
pub fn cause_as_json(cause: &Lookalikes) -> Value {
    json!({
        "fingerprint": cause.fingerprint, "count": cause.count, "errorCode": cause.error_code,
        "exampleId": cause.example_id.to_string(), "exampleMessage": cause.example_message,
        "oldest": cause.oldest, "newest": cause.newest,
    })
}

/// How many there are for a reason.
pub fn reason_as_json((reason, count): &(DeadLetterReason, i64)) -> Value {
    json!({ "reason": reason.as_str(), "count": count })
}

/// A page, and what the whole list has in common.
pub fn list(
    entries: &Page<DeadLetter>,
    reasons: &[(DeadLetterReason, i64)],
    causes: &[Lookalikes],
) -> String {
    if entries.items.is_empty() {
        return "No such dead letters.".to_owned();
    }
    let mut page = table(&["id", "made", "reason", "status", "model or type", "job", "error"]);
    for entry in &entries.items {
        page.add_row([
            entry.id.to_string(),
            time(entry.created_at),
            words(entry.reason.as_str()),
            words(entry.status.as_str()),
            entry.model.clone().unwrap_or_else(|| entry.kind.to_string()),
            entry.job_id.to_string(),
            format!("{}: {}", entry.error_code, shown(&entry.error_message)),
        ]);
    }
    let all: i64 = reasons.iter().map(|(_, n)| n).sum();
    let reasons: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {}", words(r.as_str()))).collect();
    let mut parts = vec![lines(&page), format!("{} of {all}: {}", entries.items.len(), reasons.join(", "))];
    if let Some(last) = entries.items.last().filter(|_| entries.has_next) {
        parts.push(format!("For the next ones: --after {}", cursor(last)));
    }
    let mut alike = table(&["fingerprint", "count", "oldest", "newest", "for example"]);
    for cause in causes {
        alike.add_row([
            cause.fingerprint.clone(),
            cause.count.to_string(),
            time(cause.oldest),
            time(cause.newest),
            shown(&cause.example_message),
        ]);
    }
    parts.push(format!("\nWhat looks the same (--fingerprint)\n{}", lines(&alike)));
    parts.join("\n")
}

/// One dead letter in full.
pub fn one(entry: &DeadLetter) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (run, scenario) = (&entry.snapshot["run"], &entry.snapshot["scenario"]);
    let known = |value: &Value| Some(text(value)).filter(|_| value.is_string());
    let closed = entry.resolved_at.zip(entry.resolved_by.as_ref());
    let metadata = entry.metadata.as_object().filter(|m| !m.is_empty());
    let attempts = entry.attempts.as_array().map_or(&[] as &[_], Vec::as_slice);
    let mut nodes: Vec<String> = attempts.iter().map(|attempt| text(&attempt["node_id"])).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let facts = [
        ("dead letter", Some(format!("{} ({})", entry.id, words(entry.status.as_str())))),
        ("made", Some(time(entry.created_at))),
        ("reason", Some(words(entry.reason.as_str()))),
        ("error", Some(format!("{}: {}", entry.error_code, entry.error_message))),
        ("fingerprint", Some(entry.fingerprint.clone())),
        ("job", Some(format!("{} {}, epoch {}", entry.job_id, entry.kind, entry.epoch))),
        ("model", entry.model.clone()),
        ("run", Some(format!("{} {} (of {})", entry.run_id, text(&run["name"]), entry.owner))),
        ("definition", Some(entry.definition_id.to_string())),
        ("scenario", known(&scenario["key"])),
        ("prompt", known(&scenario["prompt"])),
        ("params", Some(entry.snapshot["params"].to_string())),
        ("metadata", metadata.map(|_| entry.metadata.to_string())),
        ("closed", closed.map(|(at, by)| format!("{} by {by}", time(at)))),
        ("ran on", (!nodes.is_empty()).then(|| nodes.join(", "))),
        ("tried again", entry.redriven_at.map(time)),
        ("notes", entry.notes.clone()),
    ];
    let mut parts: Vec<String> = facts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:14}{}", value?.replace('\n', "\n              "))))
        .collect();
    if attempts.is_empty() {
        parts.push("\nIt was never tried.".to_owned());
        return parts.join("\n");
    }
    let mut tries = table(&["attempt", "started", "ended", "outcome", "error"]);
    for attempt in attempts {
        let error = known(&attempt["error_code"])
            .map(|code| format!("{code}: {}", shown(&text(&attempt["error_message"]))));
        tries.add_row([
            attempt["number"].to_string(),
            moment(&text(&attempt["started_at"])),
            moment(&text(&attempt["ended_at"])),
            text(&attempt["outcome"]),
            error.unwrap_or_default(),
        ]);
    }
    parts.push(format!("\n{}", lines(&tries)));
    if let Some(tail) = attempts.iter().rev().find_map(|a| a["stderr_tail"].as_str()) {
        parts.push(format!("\nThe end of stderr\n{tail}"));
    }
    parts.join("\n")
}

/// The name of a value as words.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// To the second.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A time of the database's JSON, to the second; as it stands, if it is none.
fn moment(text: &str) -> String {
    text.parse::<DateTime<Utc>>().map_or_else(|_| text.to_owned(), time)
}

/// The start of a message on one line.
fn shown(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_SHOWN) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
