//! `runlane restored`: what a restored database may do a second time.

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::acting::Acting;
use super::output::{lines, table};
use crate::app::{DATABASE_WAIT, command_store, database_url, prepare_database};
use crate::config::Config;
use crate::store::RestoredRun;

/// What to do.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Say that the database has just been restored: pauses the queue and takes the report anew. A restored dump is noticed
    /// without this when a node starts; a physical backup (the same cluster, at an earlier time) is not.
    #[arg(long)]
    mark: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    acting: Acting,
}

/// Prints what may run twice since the last restore.
///
/// # Errors
/// When the database cannot be reached or refuses.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    database_url(&config)?;
    prepare_database(&config, DATABASE_WAIT).await?;
    let store = command_store(&config, "runlane restored").await?;
    // A restored dump may be looked at before a node has started on it.
    store.settle_home().await.context("cannot see where the database lives")?;
    if arguments.mark {
        store
            .acting_for(&arguments.acting.requester()?)
            .begin_after_restore("an operator said that the database was restored")
            .await
            .context("cannot pause the queue")?;
    }
    let restored = store.restored().await.context("cannot read the report")?;
    if arguments.json {
        let report = restored.map(|(at, runs)| json!({ "restoredAt": at, "runs": runs }));
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let Some((at, runs)) = restored else {
        println!("This database has not been restored since nodes use it.");
        return Ok(());
    };
    println!("Restored, as found at {}. The queue was paused.", at.format("%Y-%m-%d %H:%M:%S UTC"));
    if runs.is_empty() {
        println!("No run was under way: nothing runs twice.");
    } else {
        println!("{}", list(&runs));
        println!("Jobs that ran then run again. Of those that waited, some may have run since the backup.");
    }
    println!("Cancel what must not run again; then `runlane queue resume`.");
    Ok(())
}

fn list(runs: &[RestoredRun]) -> String {
    let mut all = table(&["run", "ran", "waited", "last change in the backup", "owner", "name"]);
    for run in runs {
        let last = run.last_change_at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string());
        all.add_row([
            run.run_id.to_string(),
            run.active.len().to_string(),
            run.waiting.to_string(),
            last.unwrap_or_default(),
            run.created_by.clone(),
            run.name.clone().unwrap_or_default(),
        ]);
    }
    lines(&all)
}
