//! `runlane staleness`: what takes too long, for operators.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::app::database_url;
use crate::config::Config;
use crate::domain::page::PageRequest;
use crate::domain::staleness::{Stage, StaleJob, StaleRun, StalenessFilter};
use crate::store::{PoolSettings, Store, connect};

/// What to do.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the runs and then the jobs that take long, and what is or will be done about each. Nothing is changed.
    Check {
        /// Say that nothing is to be changed; acting is up to the node that leads.
        #[arg(long)]
        dry_run: bool,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
        /// How many runs and how many jobs at most.
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        limit: i64,
    },
}

/// Runs the command.
///
/// # Errors
/// When the database cannot be asked.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let Command::Check { dry_run, json, limit } = arguments.command;
    if !dry_run {
        bail!(
            "staleness check acts on nothing itself, the node that leads does: give --dry-run to see what it is going to do"
        );
    }
    let n = &config.numbers;
    let settings = PoolSettings {
        size: 1,
        acquire_timeout: Duration::from_millis(n.pool_acquire_timeout_ms),
        statement_timeout: Duration::from_millis(n.statement_timeout_ms),
        lock_timeout: Duration::from_millis(n.lock_timeout_ms),
    };
    let store = Store::new(connect(&database_url(&config)?, "runlane staleness", settings)?);
    let page = PageRequest { limit, after: None, count: false };
    let found = store.stale_jobs(&StalenessFilter::default(), &page, n.count_max).await?;
    let mut runs = store.stale_runs(limit + 1).await?;
    let shown = usize::try_from(limit).expect("the range of --limit is positive");
    let more_runs = runs.len() > shown;
    runs.truncate(shown);
    if json {
        for run in &runs {
            println!("{}", run_as_json(run));
        }
        for job in &found.items {
            println!("{}", as_json(job));
        }
    } else {
        println!("{}", table(&runs, &found.items));
    }
    if found.has_next || more_runs {
        eprintln!("There are more than {limit}: give a higher --limit to see them.");
    }
    Ok(())
}

fn run_as_json(run: &StaleRun) -> serde_json::Value {
    json!({
        "runId": run.run_id, "stage": Stage::Run.as_str(), "since": run.since, "ageMs": run.age_ms,
        "thresholdMs": run.threshold_ms, "percent": run.percent(), "health": run.health.as_str(),
        "action": run.action.as_str(),
    })
}

fn as_json(job: &StaleJob) -> serde_json::Value {
    json!({
        "jobId": job.job_id.to_string(), "runId": job.run_id, "type": job.kind.as_str(), "modelId": job.model,
        "stage": job.stage.as_str(), "since": job.since, "ageMs": job.age_ms, "thresholdMs": job.threshold_ms,
        "percent": job.percent(), "health": job.health.as_str(), "action": job.action.as_str(),
    })
}

fn table(runs: &[StaleRun], jobs: &[StaleJob]) -> String {
    if runs.is_empty() && jobs.is_empty() {
        return "No run and no job takes long.".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["JOB", "RUN", "TYPE", "MODEL", "STAGE", "SINCE", "PERCENT", "HEALTH", "AT 100 %"]);
    for run in runs {
        table.add_row([
            String::new(),
            run.run_id.to_string(),
            String::new(),
            String::new(),
            Stage::Run.to_string(),
            run.since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            format!("{:.0}", run.percent()),
            run.health.to_string(),
            run.action.to_string(),
        ]);
    }
    for job in jobs {
        table.add_row([
            job.job_id.to_string(),
            job.run_id.to_string(),
            job.kind.to_string(),
            job.model.clone().unwrap_or_default(),
            job.stage.to_string(),
            job.since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            format!("{:.0}", job.percent()),
            job.health.to_string(),
            job.action.to_string(),
        ]);
    }
    table.to_string()
}
