//! Tidying up, in small steps that no claim has to wait for: one node at a time.

use std::sync::Arc;

use super::archive;
use super::leader::lead;
use super::session::Session;
use crate::domain::leader::{Duty, Term};
use crate::store::Result;

/// Rows that one step rewrites.
const BATCH: i64 = 2_000;

/// Tidies up at every interval while this node leads, until the session is over.
pub async fn tidy(session: Arc<Session>) {
    let interval = session.parts.config.archive.interval;
    lead(session, Duty::Maintenance, interval, tidy_once).await;
}

async fn tidy_once(session: Arc<Session>, term: Term) -> Result<()> {
    let store = &session.parts.store;
    while store.settle_closed_lanes(term, BATCH).await? > 0 && !session.stop_claiming.is_cancelled() {}
    store.guard_idle_runs().await?;
    store.refresh_figures().await?;
    archive::look_after(&session).await
}
