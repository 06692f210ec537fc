//! Keeps the hot tables small: archives what is finished, drops what is old, removes what was deleted.

use std::time::Duration;

use tokio::time::Instant;

use super::session::Session;
use crate::config::ArchivePolicy;
use crate::store::{Result, Store};

/// Looks after the archive once. What is left after an interval's time is for the next one: the leader has more to do.
pub(super) async fn look_after(session: &Session) -> Result<()> {
    let policy = &session.parts.config.archive;
    let store = &session.parts.store;
    let until = Instant::now() + policy.interval;
    if policy.enabled {
        steps(session, until, "archived jobs", || store.archive_jobs(policy.after, policy.batch)).await?;
        purge(session, policy, store).await?;
    }
    steps(session, until, "removed rows of deleted runs", || {
        store.remove_deleted_run(policy.delete_after, policy.batch)
    })
    .await?;
    steps(session, until, "removed rows of deleted definitions", || {
        store.remove_deleted_definition(policy.delete_after, policy.batch)
    })
    .await
}

/// Takes bounded steps until one finds nothing or the time is up, with a rest after each.
async fn steps<F: Future<Output = Result<Option<i32>>>>(
    session: &Session,
    until: Instant,
    what: &str,
    step: impl Fn() -> F,
) -> Result<()> {
    let mut total = 0_i64;
    let mut longest = Duration::ZERO;
    while !session.stop_claiming.is_cancelled() {
        let began = Instant::now();
        match step().await? {
            // Somebody else is at it, or there is nothing left.
            None | Some(0) => break,
            Some(n) => total += i64::from(n),
        }
        let took = began.elapsed();
        longest = longest.max(took);
        let rested = Instant::now() + took * session.parts.config.archive.rest;
        tokio::select! {
            () = tokio::time::sleep_until(rested.min(until)) => {}
            () = session.stop_claiming.cancelled() => {}
        }
        if rested >= until {
            break;
        }
    }
    if total > 0 {
        tracing::info!(total, longest_step = ?longest, node_id = %session.node, "{what}");
    }
    Ok(())
}

async fn purge(session: &Session, policy: &ArchivePolicy, store: &Store) -> Result<()> {
    for partition in store.expired_partitions(&ArchivePolicy::OUTCOMES, &policy.keep_days).await? {
        match store.purge_partition(&partition.name).await {
            Ok(Some(jobs)) => {
                tracing::info!(partition = partition.name, jobs, bytes = partition.bytes, node_id = %session.node, "purged");
            }
            Ok(None) => {
                tracing::debug!(
                    partition = partition.name,
                    "kept: a run in it is open again or looked into, or somebody else is at it"
                );
            }
            // Whoever reads it holds up neither the other partitions nor what else there is to do.
            Err(error) if error.is_transient() => {
                tracing::warn!(partition = partition.name, %error, node_id = %session.node, "not purged; the next look tries again");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
