//! Passes the database's wake-up calls on.

use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use crate::store::{Notice, Result};

/// The wait before a new connection after an error.
const RECONNECT: Duration = Duration::from_millis(500);

/// Passes wake-up calls on until the session is over.
pub async fn listen(session: Arc<Session>) {
    while !session.over.is_cancelled() {
        tokio::select! {
            result = listen_once(&session) => {
                if let Err(error) = result {
                    tracing::warn!(%error, node = %session.node, "not listening; trying again");
                }
            }
            () = session.over.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            () = session.over.cancelled() => return,
        }
    }
}

async fn listen_once(session: &Session) -> Result<()> {
    let mut listener = session.parts.store.listen().await?;
    loop {
        // Whatever was sent before we listened, or while the connection was down, was not heard: look at everything.
        session.wake.notify_one();
        session.cancels.send_replace(());
        while let Some(notice) = listener.next().await? {
            match notice {
                Notice::Wake => session.wake.notify_one(),
                Notice::Cancel => session.cancels.send_replace(()),
                Notice::Node => session.beat_now.notify_one(),
            }
        }
    }
}
