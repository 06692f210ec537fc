//! The node's sign of life, and the rescue of jobs whose node gives none.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::session::{Session, lease_term};
use crate::store::{Beat, Heartbeat, Missed, Pulse, Result};

/// The part of a lease that is left for the end of the workers when it cannot be renewed.
const RESERVE: u32 = 6;
/// The first try of a renewal may take this part of the lease; each that runs out of time doubles it, so that a slow
/// network gets through as well.
const FIRST_TRY: u32 = 6;
/// The first pause between two tries, as a part of the time between two renewals; doubles up to [`PAUSE_MAX`].
const PAUSE: u32 = 20;
/// The longest such pause, likewise.
const PAUSE_MAX: u32 = 2;
/// Renewals from one regular sweep to the next.
const SWEEP: u32 = 24;

/// Renews the lease until the session is over; gives the session up when the lease is lost or about to run out.
pub async fn keep(session: Arc<Session>) {
    let term = lease_term(&session.parts);
    let mut keeper = Keeper {
        heartbeat: session.parts.lease_store.heartbeat(term / 2),
        session: Arc::clone(&session),
        term,
        period: renewal_period(&session),
        held_from: session.began,
        failed: 0,
        alarm: None,
        alarms: 0,
    };
    tokio::select! {
        () = keeper.until_lost() => {
            session.parts.metrics.lease_lost();
            session.lost.cancel();
        }
        () = session.over.cancelled() => {}
    }
    keeper.heartbeat.close().await;
}

struct Keeper {
    session: Arc<Session>,
    heartbeat: Heartbeat,
    term: Duration,
    /// From one renewal to the next.
    period: Duration,
    /// When the lease was last asked for, so that it never ends here after it ends in the database; later by the time
    /// in which the database was down.
    held_from: Instant,
    /// Renewals that failed in this session.
    failed: u64,
    /// Half of the lease has gone by: what the audit hears of it once it can.
    alarm: Option<serde_json::Value>,
    /// How often that happened in this session.
    alarms: u32,
}

impl Keeper {
    async fn until_lost(&mut self) {
        while self.renew().await {
            tokio::select! {
                () = sleep_until(self.held_from + self.period) => {}
                () = self.session.beat_now.notified() => {}
            }
        }
    }

    /// When the workers must begin to end.
    fn good_until(&self) -> Instant {
        self.held_from + (self.term - self.term / RESERVE)
    }

    /// Tries until the lease is renewed. `false`: it is lost, or runs out.
    async fn renew(&mut self) -> bool {
        let mut patience = self.term / FIRST_TRY;
        let mut pause = self.period / PAUSE;
        loop {
            let asked_at = Instant::now();
            let has_reported = self.alarm.is_some();
            let is_down = match self.once(asked_at + patience).await {
                Some(Ok(Beat::Renewed { is_draining, next_end })) => {
                    self.renewed(asked_at, is_draining);
                    self.session.next_end.send_replace(next_end.map(|left| Instant::now() + left));
                    if has_reported {
                        self.alarm = None;
                    } else if self.alarm.is_some() {
                        self.session.beat_now.notify_one();
                    }
                    return true;
                }
                Some(Ok(Beat::Lost)) => {
                    tracing::warn!(node_id = %self.session.node, "another node took the lease for run out");
                    return false;
                }
                Some(Err(missed)) => {
                    tracing::warn!(error = %missed, node_id = %self.session.node, "cannot renew the lease; trying again");
                    matches!(missed, Missed::Down(_))
                }
                None => {
                    tracing::warn!(?patience, node_id = %self.session.node, "the lease's renewal takes too long; trying again");
                    patience *= 2;
                    false
                }
            };
            self.failed += 1;
            self.session.parts.metrics.renewal_failed();
            sleep_until((Instant::now() + pause).min(self.good_until())).await;
            pause = (pause * 2).min(self.period / PAUSE_MAX);
            if is_down {
                // Nobody can renew and nobody is judged: this time does not count.
                self.held_from += asked_at.elapsed();
            } else if Instant::now() >= self.good_until() {
                tracing::error!(
                    event = "lease_given_up", node_id = %self.session.node, failed_renewals = self.failed,
                    "the lease runs out before it can be renewed; its jobs are given up"
                );
                return false;
            }
        }
    }

    /// Tries once, until `patience` or the lease is over; `None` when that comes first.
    async fn once(&mut self, patience: Instant) -> Option<Result<Beat, Missed>> {
        let until = patience.min(self.good_until());
        let half = self.held_from + self.term / 2;
        let pulse = Pulse {
            slots: self.session.slots.sizes(),
            active: self.session.slots.taken(),
            failed_renewals: self.failed,
            late_results: self.session.late_results(),
            endangered: self.alarm.clone(),
        };
        let beat = self.heartbeat.beat(self.session.node, self.term, &pulse);
        tokio::pin!(beat);
        if self.alarm.is_none() {
            match timeout_at(half.min(until), &mut beat).await {
                Ok(answer) => return Some(answer),
                Err(_) if half < until => {
                    tracing::error!(
                        event = "lease_half_over", node_id = %self.session.node, failed_renewals = self.failed,
                        "half of the lease is over and it is not renewed; at five sixths this node gives its jobs up"
                    );
                    self.session.parts.metrics.lease_endangered();
                    self.alarms += 1;
                    self.alarm = Some(json!({ "occurrence": self.alarms, "failedRenewals": self.failed }));
                }
                Err(_) => return None,
            }
        }
        timeout_at(until, beat).await.ok()
    }

    fn renewed(&mut self, asked_at: Instant, is_draining: bool) {
        self.held_from = asked_at;
        self.session.set_draining(is_draining);
        // A cancel or a release whose notification was lost is found here.
        if self.session.inflight.len() > 0 {
            self.session.cancels.send_replace(());
        }
    }
}

/// Gives the jobs of dead nodes back to the queue until the session is over: looks for them when the lease ends that a
/// renewal saw to end next (a node that lives has long renewed it by then; one that is over is seen by each renewal), and
/// regularly for jobs of nodes that are not registered at all.
pub async fn rescue(session: Arc<Session>) {
    let mut every = interval(renewal_period(&session) * SWEEP);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_end = session.next_end.subscribe();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = is_over(&mut next_end) => {
                session.next_end.send_replace(None);
            }
            () = session.over.cancelled() => return,
        }
        fail::fail_point!("sweep");
        if let Err(error) = rescue_once(&session).await {
            tracing::warn!(%error, node_id = %session.node, "cannot look for dead nodes");
        }
    }
}

/// Waits for the end of the lease that ends next, whichever that is by then.
async fn is_over(next_end: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let end = *next_end.borrow_and_update();
        let over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = next_end.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

async fn rescue_once(session: &Session) -> Result<()> {
    for job in session.parts.lease_store.rescue_jobs(lease_term(&session.parts)).await? {
        tracing::warn!(
            request_id = job.request_id, batch_id = %job.batch_id, run_id = %job.run_id, job_id = job.claim.job_id,
            attempt = job.claim.number, lane_id = job.lane_id, node_id = %job.node,
            "job was lost with its node; it goes back to the queue"
        );
    }
    Ok(())
}

fn renewal_period(session: &Session) -> Duration {
    Duration::from_millis(session.parts.config.numbers.lease_renewal_ms)
}
