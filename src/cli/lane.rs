//! `runlane lane`.

use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};
use uuid::Uuid;

use super::acting::service;
use crate::config::Config;
use crate::domain::lane::{Lane, LaneFilter};
use crate::domain::waiting::WaitingReason;

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
}

/// Prints what there is.
///
/// # Errors
/// When the database cannot be reached, or there is no such lane.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    match arguments.command {
        Command::List { run, model, all, limit } => {
            let filter = LaneFilter { run_id: run, model, finished_too: all };
            let lanes = service.lanes(&filter, limit).await?;
            if arguments.json {
                let all: Vec<Value> = lanes.iter().map(|(lane, why)| as_json(lane, why.as_ref())).collect();
                println!("{:#}", Value::Array(all));
            } else if lanes.is_empty() {
                println!("Nothing waits or runs in any such lane; --all shows finished ones too.");
            } else {
                println!("{}", table(&lanes));
            }
        }
        Command::Show { lane: id } => {
            let ((lane, why), errors) = service.lane(id).await?.ok_or_else(|| {
                anyhow::anyhow!("there is no lane with the id {id}: `runlane lane list --all` shows them")
            })?;
            if arguments.json {
                let mut shown = as_json(&lane, why.as_ref());
                shown["errors"] =
                    errors.iter().map(|(code, n)| json!({ "errorCode": code, "failed": n })).collect();
                println!("{shown:#}");
            } else {
                print_one(&lane, why.as_ref(), &errors);
            }
        }
    }
    Ok(())
}

fn as_json(lane: &Lane, why: Option<&WaitingReason>) -> Value {
    let counts = lane.counts;
    json!({
        "id": lane.id.to_string(), "runId": lane.run_id, "runName": lane.run_name, "owner": lane.owner,
        "type": lane.kind.as_str(), "modelId": lane.model, "priority": lane.priority,
        "maxConcurrency": lane.max_concurrency, "state": lane.state(), "isPaused": lane.is_paused,
        "isClosed": lane.is_closed, "total": counts.total, "pending": counts.pending, "active": counts.active,
        "completed": counts.completed, "failed": counts.failed, "cancelled": counts.cancelled,
        "costUsd": lane.cost_usd, "updatedAt": lane.updated_at,
        "waitingBecause": why.map(ToString::to_string),
    })
}

fn table(lanes: &[(Lane, Option<WaitingReason>)]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "lane",
        "run",
        "model or type",
        "state",
        "priority",
        "pending",
        "active",
        "done",
        "failed",
        "cancelled",
        "its next job waits because",
    ]);
    for (lane, why) in lanes {
        let counts = lane.counts;
        table.add_row([
            lane.id.to_string(),
            lane.run_name
                .as_ref()
                .map_or_else(|| lane.run_id.to_string(), |n| format!("{n}\n{}", lane.run_id)),
            lane.model.clone().unwrap_or_else(|| lane.kind.to_string()),
            lane.state().to_owned(),
            lane.priority.to_string(),
            counts.pending.to_string(),
            counts.active.to_string(),
            counts.completed.to_string(),
            counts.failed.to_string(),
            counts.cancelled.to_string(),
            why.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(4).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn print_one(lane: &Lane, why: Option<&WaitingReason>, errors: &[(String, i64)]) {
    let counts = lane.counts;
    println!("lane       {} ({})", lane.id, lane.state());
    println!("run        {}  {}", lane.run_id, lane.run_name.as_deref().unwrap_or_default());
    println!("owner      {}", lane.owner);
    println!("type       {}  {}", lane.kind, lane.model.as_deref().unwrap_or_default());
    println!("priority   {}", lane.priority);
    if let Some(limit) = lane.max_concurrency {
        println!("limit      {limit} probes of the run at once");
    }
    println!(
        "jobs       {}: {} pending, {} active, {} completed, {} failed, {} cancelled",
        counts.total, counts.pending, counts.active, counts.completed, counts.failed, counts.cancelled
    );
    for (code, n) in errors {
        println!("           {n} failed with {code}");
    }
    if let Some(cost) = lane.cost_usd {
        println!("cost       {cost} US dollars");
    }
    println!("changed    {}", lane.updated_at);
    if let Some(why) = why {
        println!("next job   {why}");
    }
}
