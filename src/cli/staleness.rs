//! `runlane staleness`: what takes too long, for operators.

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{lines, say, table};
use crate::app::command_store;
use crate::config::Config;
use crate::domain::page::PageRequest;
use crate::domain::staleness::{Span, Stage, StaleJob, StaleRun, StalenessFilter};

/// What to do.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the runs and then the jobs that take long, and what the node that leads does or will do about each. Nothing is
    /// changed.
    Check {
        /// For those who want to be sure: it changes nothing either way.
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
/// When the database cannot be asked, or its schema is of another version.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let Command::Check { dry_run: _, json, limit } = arguments.command;
    let store = command_store(&config, "runlane staleness").await?;
    let page = PageRequest { limit, after: None, count: false };
    let found = store.stale_jobs(&StalenessFilter::default(), &page, config.numbers.count_max).await?;
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
        say(&list(&runs, &found.items))?;
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

fn list(runs: &[StaleRun], jobs: &[StaleJob]) -> String {
    if runs.is_empty() && jobs.is_empty() {
        return "No run and no job takes long.".to_owned();
    }
    let mut all = table(&["job", "run", "stage", "for", "health", "then", "model or type"]);
    for run in runs {
        all.add_row([
            String::new(),
            run.run_id.to_string(),
            Stage::Run.to_string(),
            format!("{} of {}", Span(run.age_ms), Span(run.threshold_ms)),
            run.health.to_string(),
            run.action.to_string(),
            String::new(),
        ]);
    }
    for job in jobs {
        all.add_row([
            job.job_id.to_string(),
            job.run_id.to_string(),
            job.stage.to_string(),
            format!("{} of {}", Span(job.age_ms), Span(job.threshold_ms)),
            job.health.to_string(),
            job.action.to_string(),
            job.model.clone().unwrap_or_else(|| job.kind.to_string()),
        ]);
    }
    lines(&all)
}
