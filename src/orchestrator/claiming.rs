//! The loop that claims: one claim for all free slots, whenever there may be something to claim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::running::{Ending, Running};
use super::session::{Session, lease_term};
use super::verdict;
use crate::domain::job::Claim;
use crate::domain::work::{RunContext, Work};
use crate::executor::Stop;
use crate::store::{Claimed, Contexts, Result, Store};

/// The wait before the database is asked again after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(500);
/// How often this node looks for claims of its own that it does not know of, though nothing has gone wrong that it knows.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Claims until the session stops claiming.
pub async fn claim(session: Arc<Session>, ends: mpsc::Sender<Ending>) {
    let mut claimer = Claimer {
        store: session.parts.store.on_kept_connections(),
        cancels: session.cancels.subscribe(),
        session,
        ends,
        contexts: Contexts::default(),
        unsure_until: None,
        looked_at: Instant::now(),
    };
    while !claimer.session.stop_claiming.is_cancelled() {
        let wait = match claimer.round().await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, node_id = %claimer.session.node, "claiming failed; trying again");
                Some(ERROR_PAUSE)
            }
        };
        if let Some(limit) = wait {
            tokio::select! {
                () = claimer.session.wake.notified() => {}
                () = tokio::time::sleep(limit) => {}
                () = claimer.session.stop_claiming.cancelled() => {}
            }
        }
    }
    if claimer.unsure_until.is_some()
        && let Err(error) = claimer.give_back_unknown().await
    {
        let session = &claimer.session;
        tracing::warn!(%error, node_id = %session.node, "claims may be left over; they end with the lease");
    }
}

struct Claimer {
    session: Arc<Session>,
    /// Its statements follow each other, and a claim is dear to plan.
    store: Store,
    ends: mpsc::Sender<Ending>,
    contexts: Contexts,
    cancels: watch::Receiver<()>,
    /// Until then a claim may commit without our hearing of it: its answer was lost, and it may still run.
    unsure_until: Option<Instant>,
    /// When this node last looked for claims that it does not know of.
    looked_at: Instant,
}

impl Claimer {
    /// Claims once. `None`: look again at once; otherwise how long to wait at most.
    async fn round(&mut self) -> Result<Option<Duration>> {
        let session = Arc::clone(&self.session);
        let mut poll = Duration::from_millis(session.parts.config.numbers.poll_interval_ms);
        if self.unsure_until.is_some() || self.looked_at.elapsed() > LOOK_EVERY {
            let began = Instant::now();
            let unknown = self.unknown().await?;
            self.begin(Claimed { again: unknown, ..Claimed::default() }).await;
            self.looked_at = began;
            if self.unsure_until.is_some_and(|until| began <= until) {
                poll = poll.min(ERROR_PAUSE);
            } else {
                self.unsure_until = None;
            }
        }
        let held = session.held();
        if let Some(hold) = held.everything {
            return Ok(Some(hold));
        }
        poll = poll.min(held.soonest.unwrap_or(poll));
        let free = session.slots.free();
        if free.is_empty() {
            return Ok(Some(poll));
        }
        // A claim that is not answered within a lease may have committed all the same: its jobs must not wait longer.
        let store = self.store.answered_within(lease_term(&session.parts));
        self.cancels.mark_unchanged();
        let mut claimed = match store.claim_jobs_without(session.node, &free, &held.providers).await {
            Ok(claimed) => claimed,
            Err(error) => {
                let longest = session.parts.config.numbers.statement_timeout_ms;
                self.unsure_until = Some(Instant::now() + Duration::from_millis(longest));
                return Err(error);
            }
        };
        self.contexts.learn(std::mem::take(&mut claimed.shared));
        let look_after = claimed.look_after;
        self.begin(claimed).await;
        // Of a cancel between the claim and now nobody has told these jobs.
        if self.cancels.has_changed().unwrap_or(false) {
            session.cancels.send_replace(());
        }
        Ok(match look_after {
            Some(Duration::ZERO) => None,
            Some(due) => Some(due.min(poll)),
            None => Some(jittered(poll)),
        })
    }

    /// Claims that the database has and this node does not: their answer was lost, or they have ended just now.
    async fn unknown(&self) -> Result<Vec<Claim>> {
        let session = &self.session;
        let claims = self.store.claims_of(session.node).await?;
        Ok(claims.into_iter().filter(|&c| !session.inflight.holds(c)).collect())
    }

    /// A node that stops starts nothing more, so what it has claimed without knowing goes back at once.
    async fn give_back_unknown(&self) -> Result<()> {
        let unknown = self.unknown().await?;
        if unknown.is_empty() {
            return Ok(());
        }
        tracing::info!(node_id = %self.session.node, jobs = unknown.len(), "claims whose answer was lost are given back");
        let ends: Vec<_> = unknown.into_iter().map(verdict::released).collect();
        let parts = &self.session.parts;
        self.store.end_attempts(self.session.node, &ends, parts.config.numbers.crash_hold_jobs).await?;
        Ok(())
    }

    /// Reads what is not known of what was claimed, and starts it. The claims are ours: this goes on until they are read, or
    /// given up with the lease.
    async fn begin(&mut self, claimed: Claimed) {
        let others = loop {
            if self.session.lost.is_cancelled() {
                return;
            }
            match self.read(&claimed).await {
                Ok(others) => break others,
                Err(error) => {
                    tracing::warn!(%error, node_id = %self.session.node, "cannot read claimed jobs; trying again");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        };
        let Claimed { taken_in, first, .. } = claimed;
        for (work, context) in self.contexts.first_work(first).chain(others) {
            self.start(Work { taken_in, ..work }, context);
        }
    }

    /// The jobs that came without their payloads; reads of the others what they share.
    async fn read(&mut self, claimed: &Claimed) -> Result<Vec<(Work, Arc<RunContext>)>> {
        let Claimed { first, again, .. } = claimed;
        let mut others = Vec::new();
        if !again.is_empty() {
            others = self.store.work(self.session.node, again, &mut self.contexts).await?;
            // A claim that is no longer current was taken from us; its number says so.
            others.retain(|(work, _)| again.contains(&work.claim));
        }
        self.store.learn_of(first, &mut self.contexts).await?;
        Ok(others)
    }

    fn start(&self, work: Work, context: Arc<RunContext>) {
        let (stopper, stop) = Stop::pair();
        if !self.session.inflight.begin(work.claim, stopper) {
            return;
        }
        tracing::info!(
            request_id = context.request_id, batch_id = %context.batch_id, run_id = %work.run_id, job_id = work.claim.job_id,
            attempt = work.claim.number, lane_id = work.lane_id, node_id = %self.session.node, kind = %work.kind,
            "job claimed"
        );
        self.session.parts.metrics.claimed(work.kind);
        if work.cancel_requested {
            self.session.cancels.send_replace(());
        }
        let slot = self.session.slots.take(work.kind);
        let running = Running { session: Arc::clone(&self.session), work: Arc::new(work), context, slot };
        self.session.jobs.spawn(running.execute(stop, self.ends.clone()));
    }
}

/// Polls of many nodes spread out.
fn jittered(poll: Duration) -> Duration {
    poll.mul_f64(0.9 + 0.2 * super::running::random_fraction())
}
