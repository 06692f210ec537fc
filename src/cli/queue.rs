//! `runlane queue`.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::acting::{Acting, service};
use super::output::{counted, lines, say, table};
use crate::config::Config;
use crate::domain::dead_letter::{DeadLetterFilter, DeadLetterStatus};
use crate::domain::node::NodeState;
use crate::domain::view::QueueStatus;
use crate::service::Service;

/// What to do with the whole queue.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show whether anything may start, what waits and runs, and what waits for a person.
    Status,
    /// Let nothing start, in any run. What runs goes on.
    Pause {
        /// Why, for everybody whose jobs wait.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        acting: Acting,
    },
    /// Let jobs start again.
    Resume {
        #[command(flatten)]
        acting: Acting,
    },
}

/// What a queue needs besides its jobs, and what it leaves for people.
struct Around {
    executing: usize,
    not_executing: usize,
    dead_letters: i64,
}

/// Does it, and prints how the queue is then.
///
/// # Errors
/// When the database cannot be reached, or it refuses.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    let status = match arguments.command {
        Command::Status => service.queue_status().await?,
        Command::Pause { reason, acting } => service.pause_queue(&acting.requester()?, reason).await?,
        Command::Resume { acting } => service.resume_queue(&acting.requester()?).await?,
    };
    let around = around(&service).await?;
    say(&if arguments.json { format!("{:#}", as_json(&status, &around)) } else { text(&status, &around) })
}

async fn around(service: &Service) -> anyhow::Result<Around> {
    // Who only looks needs no name.
    let anybody = Acting::default().requester()?;
    let nodes = service.nodes(&anybody).await?;
    let executing = nodes.iter().filter(|n| n.executes && n.state == NodeState::Active).count();
    let pending = DeadLetterFilter { statuses: Some(vec![DeadLetterStatus::Pending]), ..Default::default() };
    let reasons = service.dead_letters_by_reason(&anybody, &pending).await?;
    Ok(Around {
        executing,
        not_executing: nodes.len() - executing,
        dead_letters: reasons.iter().map(|(_, n)| n).sum(),
    })
}

fn as_json(status: &QueueStatus, around: &Around) -> Value {
    let kinds: Vec<Value> = status
        .kinds
        .iter()
        .map(|k| {
            json!({
                "type": k.kind.as_str(), "pending": k.pending, "active": k.active,
                "completed": k.completed, "failed": k.failed,
            })
        })
        .collect();
    json!({
        "isPaused": status.paused_at.is_some(), "pausedAt": status.paused_at, "pausedBy": status.paused_by,
        "pauseReason": status.pause_reason, "types": kinds, "nodesExecuting": around.executing,
        "nodesNotExecuting": around.not_executing, "deadLettersPending": around.dead_letters,
    })
}

fn text(status: &QueueStatus, around: &Around) -> String {
    let state = match (status.paused_at, &status.paused_by, &status.pause_reason) {
        (None, ..) => "open".to_owned(),
        (Some(at), by, reason) => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("paused since {}{by}{reason}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
    };
    let mut kinds = table(&["type", "waits", "runs", "done in 24 h", "failed in 24 h"]);
    for k in &status.kinds {
        kinds.add_row([
            k.kind.to_string(),
            k.pending.to_string(),
            k.active.to_string(),
            k.completed.to_string(),
            k.failed.to_string(),
        ]);
    }
    for column in kinds.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let idle = match around.not_executing {
        0 => String::new(),
        n => format!(", {n} not (they only serve, drain or stop, or are lost)"),
    };
    let executing = i64::try_from(around.executing).unwrap_or(i64::MAX);
    let verb = if executing == 1 { "executes" } else { "execute" };
    let mut parts = vec![
        format!("queue  {state}"),
        format!("nodes  {} {verb} jobs{idle}", counted(executing, "node")),
        String::new(),
        lines(&kinds),
    ];
    let steps = next(status, around);
    if !steps.is_empty() {
        parts.push(String::new());
        parts.extend(steps);
    }
    parts.join("\n")
}

/// What there is to do.
fn next(status: &QueueStatus, around: &Around) -> Vec<String> {
    let mut steps = Vec::new();
    if status.paused_at.is_some() {
        steps.push("Nothing starts until `runlane queue resume`.".to_owned());
    }
    if around.executing == 0 {
        steps.push(
            "No node executes jobs: `runlane node list`, then start `runlane serve` or `runlane work`."
                .to_owned(),
        );
    }
    if around.dead_letters > 0 {
        let n = counted(around.dead_letters, "dead letter");
        steps.push(format!("{n} wait for somebody: `runlane deadletter list`."));
    }
    steps
}
