//! Wake-up calls from the database. A lost one costs latency, never a job: polls stand behind them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;

use super::session::Session;

/// Work may have become claimable.
const WAKE: &str = "runlane_wake";
/// A running job may have been cancelled.
const CANCEL: &str = "runlane_cancel";
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

async fn listen_once(session: &Session) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(session.parts.store.pool()).await?;
    listener.listen_all([WAKE, CANCEL]).await?;
    loop {
        // Whatever was sent before we listened, or while the connection was down, was not heard: look at everything.
        session.wake.notify_one();
        session.cancels.notify_one();
        while let Some(notification) = listener.try_recv().await? {
            if notification.channel() == CANCEL {
                session.cancels.notify_one();
            } else {
                session.wake.notify_one();
            }
        }
    }
}
