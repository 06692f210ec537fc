//! What the database says by itself. A lost notification costs latency, never a job: polls stand behind them.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::connections::unanswered;
use super::{Result, Store};

/// Work may have become claimable.
const WAKE: &str = "runlane_wake";
/// A running job may have been cancelled.
const CANCEL: &str = "runlane_cancel";
/// Somebody changed what a node may do, or took its jobs away.
const NODE: &str = "runlane_node";

/// A listener that has heard nothing for so long asks whether anybody is there: networks drop idle connections silently.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// How long it waits for an answer, and for a connection.
const ANSWER_MAX: Duration = Duration::from_secs(5);

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

/// A connection that listens, of no pool: one that has gone silent is held by nobody else.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Store {
    /// Listens from now on; what was said before is not heard.
    ///
    /// # Errors
    /// The database's.
    pub async fn listen(&self) -> Result<Listener> {
        let options = self.pool().connect_options().as_ref().clone().application_name("runlane listener");
        let own =
            PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER_MAX).connect_lazy_with(options);
        let listening = async {
            let mut listener = PgListener::connect_with(&own).await?;
            listener.listen_all([WAKE, CANCEL, NODE]).await?;
            Ok(Listener(listener))
        };
        timeout(ANSWER_MAX, listening).await.unwrap_or_else(|_| Err(unanswered(ANSWER_MAX).into()))
    }
}

impl Listener {
    /// The next notice. `None` when the connection was lost and made again: what was said meanwhile is not heard.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<Notice>> {
        let heard = loop {
            match timeout(QUIET_MAX, self.0.try_recv()).await {
                Ok(heard) => break heard?,
                Err(_) => timeout(ANSWER_MAX, sqlx::query!("select").execute(&mut self.0))
                    .await
                    .unwrap_or_else(|_| Err(unanswered(ANSWER_MAX)))?,
            };
        };
        Ok(heard.map(|n| match n.channel() {
            CANCEL => Notice::Cancel,
            NODE => Notice::Node,
            _ => Notice::Wake,
        }))
    }
}
