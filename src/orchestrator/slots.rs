//! How many jobs of each kind this node may still begin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::JobKind;

/// The node's slots, per kind, so that busy probes never delay an analysis.
#[derive(Debug)]
pub struct Slots {
    sizes: BTreeMap<JobKind, u32>,
    /// Below zero when a claim turned up whose answer had been lost.
    free: Mutex<BTreeMap<JobKind, i64>>,
    freed: Arc<Notify>,
}

/// A taken slot; dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    kind: JobKind,
}

impl Slots {
    /// As many slots as given; `freed` is notified when one becomes free.
    #[must_use]
    pub fn new(sizes: BTreeMap<JobKind, u32>, freed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            sizes: sizes.clone(),
            free: Mutex::new(sizes.into_iter().map(|(kind, n)| (kind, i64::from(n))).collect()),
            freed,
        })
    }

    /// The kinds with free slots, and how many.
    #[must_use]
    pub fn free(&self) -> Vec<(JobKind, u32)> {
        self.lock()
            .iter()
            .filter_map(|(&kind, &n)| Some((kind, u32::try_from(n).ok().filter(|&n| n > 0)?)))
            .collect()
    }

    /// How many slots there are of each kind.
    #[must_use]
    pub fn sizes(&self) -> Vec<(JobKind, u32)> {
        self.sizes.iter().map(|(&kind, &n)| (kind, n)).collect()
    }

    /// How many slots of each kind are taken.
    #[must_use]
    pub fn taken(&self) -> Vec<(JobKind, u32)> {
        let free = self.lock();
        let taken = |kind: &JobKind, n: u32| i64::from(n) - free.get(kind).copied().unwrap_or_default();
        self.sizes
            .iter()
            .map(|(&kind, &n)| (kind, u32::try_from(taken(&kind, n)).unwrap_or_default()))
            .collect()
    }

    /// Takes a slot for a claimed job. The job is ours whether or not a slot is free.
    #[must_use]
    pub fn take(self: &Arc<Self>, kind: JobKind) -> Slot {
        if let Some(n) = self.lock().get_mut(&kind) {
            *n -= 1;
        }
        Slot { slots: Arc::clone(self), kind }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobKind, i64>> {
        // A panic elsewhere leaves the counts as they are, and they are right at any moment.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(n) = self.slots.lock().get_mut(&self.kind) {
            *n += 1;
        }
        self.slots.freed.notify_one();
    }
}
