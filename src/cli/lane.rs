//! `runlane lane`.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::CellAlignment;
use serde_json::{Value, json};
use uuid::Uuid;

use super::acting::{Acting, service};
use super::output::{lines, say, table};
use crate::config::Config;
use crate::domain::lane::{Lane, LaneFilter};
use crate::domain::waiting::Waiting;
use crate::service::{LaneAndWhy, Service};

/// How many jobs have failed with each code.
type Errors = Vec<(String, i64)>;

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the lanes in which something waits or runs, the most urgent first.
    List {
        /// Only those of this run.
        #[arg(long, value_name = "RUN")]
        run: Option<Uuid>,
        /// Only those of this model.
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// Also those in which nothing waits or runs any more.
        #[arg(long)]
        all: bool,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show one lane.
    Show {
        /// Its id.
        lane: i64,
    },
    /// Let the jobs of a held lane start again. Remove first what makes them crash, or it is held again.
    Release {
        /// Its id.
        lane: i64,
        #[command(flatten)]
        acting: Acting,
    },
}

/// Does it, and prints what there is then.
///
/// # Errors
/// When the database cannot be reached, or there is no such lane.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    say(&match arguments.command {
        Command::List { run, model, all, limit } => {
            let filter = LaneFilter { run_id: run, model, finished_too: all };
            let lanes = service.lanes(&filter, limit).await?;
            if arguments.json {
                let all: Vec<Value> = lanes.iter().map(|(lane, why)| as_json(lane, why.as_ref())).collect();
                format!("{:#}", Value::Array(all))
            } else if lanes.is_empty() {
                "Nothing waits or runs in any such lane; --all shows finished ones too.".to_owned()
            } else {
                list(&lanes)
            }
        }
        Command::Show { lane: id } => {
            let (lane, errors) = find(&service, id).await?;
            shown(&lane, &errors, arguments.json)
        }
        Command::Release { lane: id, acting } => {
            let ((lane, _), _) = find(&service, id).await?;
            let model = lane.model.as_deref().ok_or_else(|| {
                anyhow::anyhow!(
                    "the lane {id} is one of analyses, which are never held: there is nothing to release"
                )
            })?;
            service.release_lane(&acting.requester()?, &lane.run_id.to_string(), model).await?;
            let (lane, errors) = find(&service, id).await?;
            shown(&lane, &errors, arguments.json)
        }
    })
}

async fn find(service: &Service, id: i64) -> anyhow::Result<(LaneAndWhy, Errors)> {
    service.lane(id).await?.ok_or_else(|| {
        anyhow::anyhow!("there is no lane with the id {id}: `runlane lane list --all` shows them")
    })
}

fn shown((lane, why): &LaneAndWhy, errors: &[(String, i64)], json: bool) -> String {
    if !json {
        return one(lane, why.as_ref(), errors);
    }
    let mut shown = as_json(lane, why.as_ref());
    shown["errors"] = errors.iter().map(|(code, n)| json!({ "errorCode": code, "failed": n })).collect();
    format!("{shown:#}")
}

fn as_json(lane: &Lane, why: Option<&Waiting>) -> Value {
    let counts = lane.counts;
    json!({
        "id": lane.id.to_string(), "runId": lane.run_id, "runName": lane.run_name, "owner": lane.owner,
        "type": lane.kind.as_str(), "modelId": lane.model, "priority": lane.priority,
        "maxConcurrency": lane.max_concurrency, "state": lane.state(), "isPaused": lane.is_paused,
        "isClosed": lane.is_closed,
        "heldAt": lane.held.as_ref().map(|(at, _)| at), "heldBecause": lane.held.as_ref().map(|(_, why)| why), "total": counts.total, "pending": counts.pending, "active": counts.active,
        "completed": counts.completed, "failed": counts.failed, "cancelled": counts.cancelled,
        "costUsd": lane.cost_usd, "updatedAt": lane.updated_at,
        "waitingBecause": why.map(ToString::to_string),
    })
}

fn list(lanes: &[LaneAndWhy]) -> String {
    let mut all =
        table(&["lane", "run", "state", "waits", "runs", "done", "failed", "cancelled", "model or type"]);
    for (lane, _) in lanes {
        let counts = lane.counts;
        all.add_row([
            lane.id.to_string(),
            lane.run_name
                .as_ref()
                .map_or_else(|| lane.run_id.to_string(), |n| format!("{}\n{n}", lane.run_id)),
            lane.state().to_owned(),
            counts.pending.to_string(),
            counts.active.to_string(),
            counts.completed.to_string(),
            counts.failed.to_string(),
            counts.cancelled.to_string(),
            lane.model.clone().unwrap_or_else(|| lane.kind.to_string()),
        ]);
    }
    for column in all.column_iter_mut().skip(3).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut reasons = table(&["lane", "its next job waits because"]);
    for (lane, why) in lanes {
        if let Some(why) = why {
            reasons.add_row([lane.id.to_string(), why.to_string()]);
        }
    }
    let mut parts = vec![lines(&all)];
    if !reasons.is_empty() {
        parts.extend([String::new(), lines(&reasons)]);
    }
    let steps: Vec<String> = lanes.iter().filter_map(|(lane, _)| next(lane)).collect();
    if !steps.is_empty() {
        parts.push(String::new());
        parts.extend(steps);
    }
    parts.join("\n")
}

/// What there is to do about it.
fn next(lane: &Lane) -> Option<String> {
    lane.held
        .as_ref()
        .map(|_| format!("Mend what makes them crash, then `runlane lane release {}`.", lane.id))
}

fn one(lane: &Lane, why: Option<&Waiting>, errors: &[(String, i64)]) -> String {
    let counts = lane.counts;
    let jobs = format!(
        "{}: {} pending, {} active, {} completed, {} failed, {} cancelled",
        counts.total, counts.pending, counts.active, counts.completed, counts.failed, counts.cancelled
    );
    let failed: Vec<String> = errors.iter().map(|(code, n)| format!("{n} with {code}")).collect();
    let lines = [
        ("lane", Some(format!("{} ({})", lane.id, lane.state()))),
        ("run", Some(format!("{} {}", lane.run_id, lane.run_name.as_deref().unwrap_or_default()))),
        ("owner", Some(lane.owner.clone())),
        ("type", Some(format!("{} {}", lane.kind, lane.model.as_deref().unwrap_or_default()))),
        ("priority", Some(lane.priority.to_string())),
        ("limit", lane.max_concurrency.map(|n| format!("{n} probes of the run at once"))),
        (
            "held",
            lane.held
                .as_ref()
                .map(|(at, why)| format!("since {}: {why}", at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ),
        ("jobs", Some(jobs)),
        ("failed", (!failed.is_empty()).then(|| failed.join(", "))),
        ("cost", lane.cost_usd.map(|cost| format!("{cost} US dollars"))),
        ("changed", Some(lane.updated_at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("next job", why.map(ToString::to_string)),
        ("next", next(lane)),
    ];
    let shown = lines.into_iter().filter_map(|(name, value)| Some(format!("{name:11}{}", value?)));
    shown.collect::<Vec<_>>().join("\n")
}
