//! Tidying up, in small steps that no claim has to wait for.

use std::sync::Arc;

use super::session::Session;

/// Rows that one step rewrites.
const BATCH: i64 = 2_000;

/// Tidies up at every interval until the session is over.
pub async fn tidy(session: Arc<Session>) {
    let interval = session.parts.config.archive.interval;
    loop {
        // Nodes that started together tidy up at different times.
        let wait = interval.mul_f64(0.8 + 0.4 * super::running::random_fraction());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = session.over.cancelled() => return,
        }
        if let Err(error) = tidy_once(&session).await {
            tracing::warn!(%error, node = %session.node, "tidying up failed; the next interval tries again");
        }
    }
}

async fn tidy_once(session: &Session) -> crate::store::Result<()> {
    let store = &session.parts.store;
    while store.settle_closed_lanes(BATCH).await? > 0 && !session.stop_claiming.is_cancelled() {}
    store.prune_tallies().await?;
    Ok(())
}
