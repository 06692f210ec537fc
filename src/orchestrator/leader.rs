//! Duties of which only one node at a time takes care.
//!
//! [`lead`] campaigns for a duty and, while it is this node's, calls its work at every interval. A leader that dies, is
//! frozen or is cut off is followed by another node within one interval, and what it still writes is refused.

use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use crate::domain::leader::{Duty, Term};
use crate::store::{Error, Leadership, Result};

/// Calls `work` at every interval while this node leads in `duty`, until the session ends or drains.
///
/// `work` gets the term that its writes must name. It may fail: the next interval tries again, as the leader unless the
/// error is [`Error::Deposed`]. It should look at [`Session::stop_claiming`] between its steps.
pub async fn lead<W, F>(session: Arc<Session>, duty: Duty, interval: Duration, work: W)
where
    W: Fn(Arc<Session>, Term) -> F + Send,
    F: Future<Output = Result<()>> + Send,
{
    let mut led: Option<Leadership> = None;
    while !session.stop_claiming.is_cancelled() {
        led = match hold_or_take(&session, duty, led, interval).await {
            Ok(led) => led,
            Err(error) => {
                tracing::warn!(%error, %duty, node_id = %session.node, "this node does not lead; the next interval tries again");
                None
            }
        };
        if let Some(leadership) = &led
            && let Err(error) = work(Arc::clone(&session), leadership.term()).await
        {
            tracing::warn!(%error, %duty, node_id = %session.node, "the leader's work failed; the next interval tries again");
            if matches!(error, Error::Deposed) {
                led = None;
            }
        }
        // Nodes that started together look at different times.
        let wait = interval.mul_f64(0.8 + 0.2 * super::running::random_fraction());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = session.stop_claiming.cancelled() => break,
        }
    }
    if let Some(leadership) = led
        && let Err(error) = leadership.resign().await
    {
        tracing::debug!(%error, %duty, node_id = %session.node, "the leader's session had ended before it resigned");
    }
}

/// The leadership that was held if it still is, else a new one if there is one to win.
async fn hold_or_take(
    session: &Session,
    duty: Duty,
    led: Option<Leadership>,
    interval: Duration,
) -> Result<Option<Leadership>> {
    if let Some(mut leadership) = led {
        // A session that does not answer may be cut off: others must not wait for it, nor this node.
        match tokio::time::timeout(interval.max(PATIENCE_MIN), leadership.check()).await {
            Ok(Ok(())) => return Ok(Some(leadership)),
            Ok(Err(error)) => {
                tracing::warn!(%error, %duty, node_id = %session.node, "this node has lost the leadership")
            }
            Err(_) => {
                tracing::warn!(%duty, node_id = %session.node, "the leader's session does not answer; it is given up")
            }
        }
        // Dropped, so ended, before anybody tries again.
    }
    let store = &session.parts.store;
    if !store.leadership_is_free(duty, session.node).await? {
        return Ok(None);
    }
    let won = store.take_leadership(duty, session.node).await?;
    if let Some(leadership) = &won {
        tracing::info!(%duty, epoch = leadership.term().epoch, node_id = %session.node, "this node leads");
    }
    Ok(won)
}

/// No session is given up for being slower than this.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
