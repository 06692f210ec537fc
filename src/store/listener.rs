//! What the database says by itself. A lost notification costs latency, never a job: polls stand behind them.

use sqlx::postgres::PgListener;

use super::{Result, Store};

/// Work may have become claimable.
const WAKE: &str = "runlane_wake";
/// A running job may have been cancelled.
const CANCEL: &str = "runlane_cancel";

/// Somebody changed what a node may do, or took its jobs away.
const NODE: &str = "runlane_node";

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Work may have become claimable.
    Wake,
    /// A running job may have been cancelled.
    Cancel,
    /// Somebody changed what a node may do, or took its jobs away.
    Node,
}

/// A connection that listens.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Store {
    /// Listens from now on; what was said before is not heard.
    ///
    /// # Errors
    /// The database's.
    pub async fn listen(&self) -> Result<Listener> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all([WAKE, CANCEL, NODE]).await?;
        Ok(Listener(listener))
    }
}

impl Listener {
    /// The next notice. `None` when the connection was lost and made again: what was said meanwhile is not heard.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<Notice>> {
        Ok(self.0.try_recv().await?.map(|n| match n.channel() {
            CANCEL => Notice::Cancel,
            NODE => Notice::Node,
            _ => Notice::Wake,
        }))
    }
}
