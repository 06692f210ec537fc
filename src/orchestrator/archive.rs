//! Keeps the hot tables small: archives what is finished, drops what is old, removes what was deleted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::session::Session;
use crate::config::ArchivePolicy;
use crate::store::{Result, Store};

/// Looks after the archive at every interval until the session is over. Every node does: whoever comes while another
/// is at it leaves it to that one.
pub async fn look_after(session: Arc<Session>) {
    let policy = session.parts.config.archive;
    loop {
        // Nodes that started together come at different times.
        let wait = policy.interval.mul_f64(0.8 + 0.4 * super::running::random_fraction());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = session.over.cancelled() => return,
        }
        if let Err(error) = once(&session, &policy).await {
            tracing::warn!(%error, node_id = %session.node, "looking after the archive failed; the next interval tries again");
        }
    }
}

async fn once(session: &Session, policy: &ArchivePolicy) -> Result<()> {
    let store = &session.parts.store;
    if policy.enabled {
        steps(session, policy, "archived jobs", || store.archive_jobs(policy.after, policy.batch)).await?;
        purge(session, policy, store).await?;
    }
    steps(session, policy, "removed rows of deleted runs", || {
        store.remove_deleted_run(policy.delete_after, policy.batch)
    })
    .await?;
    steps(session, policy, "removed rows of deleted definitions", || {
        store.remove_deleted_definition(policy.delete_after, policy.batch)
    })
    .await
}

/// Takes bounded steps until one finds nothing, with a rest after each.
async fn steps<F: Future<Output = Result<Option<i32>>>>(
    session: &Session,
    policy: &ArchivePolicy,
    what: &str,
    step: impl Fn() -> F,
) -> Result<()> {
    let mut total = 0_i64;
    let mut longest = Duration::ZERO;
    while !session.stop_claiming.is_cancelled() {
        let began = Instant::now();
        match step().await? {
            // Another node is at it, or there is nothing left.
            None | Some(0) => break,
            Some(n) => total += i64::from(n),
        }
        let took = began.elapsed();
        longest = longest.max(took);
        tokio::select! {
            () = tokio::time::sleep(took * ArchivePolicy::REST) => {}
            () = session.stop_claiming.cancelled() => {}
        }
    }
    if total > 0 {
        tracing::info!(total, batch = policy.batch, longest_step = ?longest, node_id = %session.node, "{what}");
    }
    Ok(())
}

async fn purge(session: &Session, policy: &ArchivePolicy, store: &Store) -> Result<()> {
    for partition in store.expired_partitions(&ArchivePolicy::OUTCOMES, &policy.keep_days).await? {
        match store.purge_partition(&partition.name).await? {
            Some(jobs) => {
                tracing::info!(partition = partition.name, jobs, bytes = partition.bytes, node_id = %session.node, "purged");
            }
            None => {
                tracing::debug!(
                    partition = partition.name,
                    "kept: a run in it is open again or looked into, or another node is at it"
                );
            }
        }
    }
    Ok(())
}
