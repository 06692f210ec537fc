//! `runlane archive` and `runlane purge`: what maintenance does by itself, now and with figures.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::acting::Acting;
use crate::app::command_store;
use crate::config::{ArchivePolicy, Config};
use crate::store::Store;

/// What to do.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    acting: Acting,
}

/// A node that is at it needs no longer than one step, again and again while there is much to do.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(50);

/// Archives every finished job that is due.
///
/// # Errors
/// When the database cannot be reached or refuses, or nodes are at it all the time.
pub async fn archive(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let (store, policy) = (open(&config, &arguments.acting).await?, config.archive);
    if arguments.dry_run {
        let due = store.archivable(policy.after).await?;
        println!("Would archive {} jobs of {} runs: {}.", due.jobs, due.runs, size(due.bytes));
        return Ok(());
    }
    let mut total = 0_i64;
    loop {
        match patiently(|| store.archive_jobs(policy.after, policy.batch)).await? {
            0 => break,
            moved => total += i64::from(moved),
        }
    }
    println!("Archived {total} jobs.");
    Ok(())
}

/// Drops every partition of the archive that has outlived its outcome's retention.
///
/// # Errors
/// When the database cannot be reached or refuses.
pub async fn purge(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let (store, policy) = (open(&config, &arguments.acting).await?, config.archive);
    let (mut jobs, mut bytes) = (0, 0);
    for partition in store.expired_partitions(&ArchivePolicy::OUTCOMES, &policy.keep_days).await? {
        let content = store.partition_content(&partition).await?;
        let what = format!("{}: {} jobs, {}", partition.name, content.jobs, size(partition.bytes));
        if content.is_held {
            println!(
                "{what}; kept: a run in it is open again, or dead letters of it are still to be looked into"
            );
            continue;
        }
        if !arguments.dry_run && store.purge_partition(&partition.name).await?.is_none() {
            println!("{what}; kept: a node is at it, or a run in it has been opened; try again");
            continue;
        }
        println!("{what}");
        jobs += content.jobs;
        bytes += partition.bytes;
    }
    let done = if arguments.dry_run { "Would purge" } else { "Purged" };
    println!("{done} {jobs} jobs: {}.", size(bytes));
    Ok(())
}

/// The store, whose changes are recorded in the name of who acts.
async fn open(config: &Config, acting: &Acting) -> anyhow::Result<Store> {
    let requester = acting.requester()?;
    Ok(command_store(config, "runlane archive").await?.acting_for(&requester))
}

/// The step's result, as soon as no node is at it.
async fn patiently<F>(step: impl Fn() -> F) -> anyhow::Result<i32>
where
    F: Future<Output = crate::store::Result<Option<i32>>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(n) = step().await? {
            return Ok(n);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("a node has been archiving for {PATIENCE:?}: let it finish, or stop it, and try again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Bytes for people.
fn size(bytes: i64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return format!("{size:.*} {unit}", usize::from(unit != "B"));
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let said = [0, 1_023, 1_536, 5 << 20, 3 << 40].map(size);
        assert_eq!(said, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB"]);
    }
}
