//! Dead letters on a terminal.

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

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

/// A page, and what the whole list has in common.
pub fn print_list(entries: &Page<DeadLetter>, reasons: &[(DeadLetterReason, i64)], causes: &[Lookalikes]) {
    if entries.items.is_empty() {
        println!("No such dead letters.");
        return;
    }
    let mut table = table(&["id", "made", "reason", "status", "model or type", "job", "error"]);
    for entry in &entries.items {
        table.add_row([
            entry.id.to_string(),
            time(entry.created_at),
            words(entry.reason.as_str()),
            words(entry.status.as_str()),
            entry.model.clone().unwrap_or_else(|| entry.kind.to_string()),
            entry.job_id.to_string(),
            format!("{}: {}", entry.error_code, shown(&entry.error_message)),
        ]);
    }
    println!("{table}");
    let all: i64 = reasons.iter().map(|(_, n)| n).sum();
    let reasons: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {}", words(r.as_str()))).collect();
    println!("{} of {all}: {}", entries.items.len(), reasons.join(", "));
    if let Some(last) = entries.items.last().filter(|_| entries.has_next) {
        println!("For the next ones: --after {}", cursor(last));
    }
    println!("\nWhat looks the same (--fingerprint)");
    let mut table = self::table(&["fingerprint", "count", "oldest", "newest", "for example"]);
    for cause in causes {
        table.add_row([
            cause.fingerprint.clone(),
            cause.count.to_string(),
            time(cause.oldest),
            time(cause.newest),
            shown(&cause.example_message),
        ]);
    }
    println!("{table}");
}

/// One dead letter in full.
pub fn print_one(entry: &DeadLetter) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("dead letter   {} ({})", entry.id, words(entry.status.as_str()));
    println!("made          {}", time(entry.created_at));
    println!("reason        {}", words(entry.reason.as_str()));
    println!("error         {}: {}", entry.error_code, entry.error_message);
    println!("fingerprint   {}", entry.fingerprint);
    println!("job           {} {}, epoch {}", entry.job_id, entry.kind, entry.epoch);
    if let Some(model) = &entry.model {
        println!("model         {model}");
    }
    println!("run           {}  {} (of {})", entry.run_id, text(&entry.snapshot["run"]["name"]), entry.owner);
    println!("definition    {}", entry.definition_id);
    if entry.snapshot["scenario"].is_object() {
        println!("scenario      {}", text(&entry.snapshot["scenario"]["key"]));
        println!(
            "prompt        {}",
            text(&entry.snapshot["scenario"]["prompt"]).replace('\n', "\n              ")
        );
    }
    println!("params        {}", entry.snapshot["params"]);
    if entry.metadata.as_object().is_some_and(|m| !m.is_empty()) {
        println!("metadata      {}", entry.metadata);
    }
    if let (Some(at), Some(by)) = (entry.resolved_at, &entry.resolved_by) {
        println!("closed        {} by {by}", time(at));
    }
    if let Some(at) = entry.redriven_at {
        println!("tried again   {}", time(at));
    }
    if let Some(notes) = &entry.notes {
        println!("notes         {}", notes.replace('\n', "\n              "));
    }
    let attempts = entry.attempts.as_array().map_or(&[] as &[_], Vec::as_slice);
    if attempts.is_empty() {
        println!("\nIt was never tried.");
        return;
    }
    let mut table = table(&["attempt", "started", "ended", "outcome", "error"]);
    for attempt in attempts {
        table.add_row([
            attempt["number"].to_string(),
            text(&attempt["started_at"]),
            text(&attempt["ended_at"]),
            text(&attempt["outcome"]),
            format!("{}: {}", text(&attempt["error_code"]), shown(&text(&attempt["error_message"]))),
        ]);
    }
    println!("\n{table}");
    if let Some(tail) = attempts.iter().rev().find_map(|a| a["stderr_tail"].as_str()) {
        println!("\nThe end of stderr\n{tail}");
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// The name of a value as words.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// To the second.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The start of a message on one line.
fn shown(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_SHOWN) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
