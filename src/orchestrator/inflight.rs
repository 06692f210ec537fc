//! The claims that this node holds, from the claim until its end is on record.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::job::Claim;
use crate::executor::{StopReason, Stopper};

/// The claims that are under way.
#[derive(Debug)]
pub struct InFlight {
    jobs: Mutex<HashMap<i64, Entry>>,
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct Entry {
    number: i32,
    stopper: Stopper,
}

impl InFlight {
    /// Nothing under way.
    #[must_use]
    pub fn new() -> Self {
        Self { jobs: Mutex::default(), count: watch::channel(0).0 }
    }

    /// Notes a claim. `false`: it is already known.
    pub fn begin(&self, claim: Claim, stopper: Stopper) -> bool {
        let mut jobs = self.lock();
        if jobs.get(&claim.job_id).is_some_and(|e| e.number == claim.number) {
            return false;
        }
        // The claim before was taken away and came back to this node: its result would come too late.
        if let Some(old) = jobs.insert(claim.job_id, Entry { number: claim.number, stopper }) {
            old.stopper.stop(StopReason::Release);
        }
        self.count.send_replace(jobs.len());
        true
    }

    /// Forgets a claim whose end is on record, or came too late.
    pub fn end(&self, claim: Claim) {
        let mut jobs = self.lock();
        if jobs.get(&claim.job_id).is_some_and(|e| e.number == claim.number) {
            jobs.remove(&claim.job_id);
        }
        self.count.send_replace(jobs.len());
    }

    /// Whether the claim is under way here.
    #[must_use]
    pub fn holds(&self, claim: Claim) -> bool {
        self.lock().get(&claim.job_id).is_some_and(|e| e.number == claim.number)
    }

    /// The claims under way.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        self.lock().iter().map(|(&job_id, entry)| Claim { job_id, number: entry.number }).collect()
    }

    /// How many are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Asks the job to stop, if it still runs under this claim.
    pub fn stop(&self, claim: Claim, reason: StopReason) {
        if let Some(entry) = self.lock().get(&claim.job_id)
            && entry.number == claim.number
        {
            entry.stopper.stop(reason);
        }
    }

    /// Asks every job to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.lock().values().for_each(|entry| entry.stopper.stop(reason));
    }

    /// Returns when nothing is under way.
    pub async fn drained(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`: the wait cannot fail.
        let _ = count.wait_for(|&n| n == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
