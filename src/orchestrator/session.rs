//! One registration of this process as a node, from its first lease to its last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::inflight::InFlight;
use super::slots::Slots;
use super::verdict::Rules;
use super::{Parts, claiming, lease, listening, maintenance, running, staleness, writing};
use crate::domain::{JobKind, ids};
use crate::executor::StopReason;
use crate::store::{NewNode, Result};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and has finished or given back everything.
    Shutdown,
    /// Its lease is gone, and with it every claim.
    LeaseLost,
}

/// What a node leaves to others because it cannot start workers for it.
pub(super) struct Held {
    /// For how long, if nothing is claimed at all.
    pub everything: Option<Duration>,
    /// Whose probes are not claimed.
    pub providers: Vec<String>,
    /// When the first of these ends.
    pub soonest: Option<Duration>,
}

/// A node's life under one id.
#[derive(Debug)]
pub struct Session {
    /// The node's id, in every claim.
    pub node: Uuid,
    /// When its first lease was asked for.
    pub(super) began: tokio::time::Instant,
    pub(super) parts: Arc<Parts>,
    pub(super) slots: Arc<Slots>,
    pub(super) inflight: InFlight,
    /// There may be something to claim.
    pub(super) wake: Arc<Notify>,
    /// Somebody may have cancelled a job that runs here, or taken it away.
    pub(super) cancels: watch::Sender<()>,
    /// Something about this node may have changed: its lease is renewed at once, which tells.
    pub(super) beat_now: Notify,
    /// When the lease of another node ends next, as the last renewal saw it.
    pub(super) next_end: watch::Sender<Option<tokio::time::Instant>>,
    /// Results that came too late.
    late_results: AtomicU64,
    /// No further claims.
    pub(super) stop_claiming: CancellationToken,
    /// The lease is gone.
    pub(super) lost: CancellationToken,
    /// Everything is on record; the remaining tasks end.
    pub(super) over: CancellationToken,
    /// The tasks of running jobs.
    pub(super) jobs: TaskTracker,
    /// No claims before: workers cannot be started, of one provider or at all.
    holds: Mutex<HashMap<Option<String>, Instant>>,
}

impl Session {
    /// Registers a new node.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(parts: &Arc<Parts>) -> Result<Self> {
        let node = ids::new_id();
        let host = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
        let new = NewNode {
            id: node,
            name: format!("{host}:{}", std::process::id()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            executes: true,
            providers: parts.config.providers.names(),
        };
        let began = tokio::time::Instant::now();
        let (store, term) = (&parts.lease_store, lease_term(parts));
        // What an admin said of this process holds under every id of it.
        if parts.is_draining.load(Ordering::Relaxed) {
            store.register_drained_node(&new, term).await?;
        } else {
            store.register_node(&new, term).await?;
        }
        let wake = Arc::new(Notify::new());
        let sizes = JobKind::ALL.iter().map(|&kind| (kind, parts.config.kind(kind).concurrency)).collect();
        tracing::info!(node_id = %node, name = new.name, "node registered");
        Ok(Self {
            node,
            began,
            parts: Arc::clone(parts),
            slots: Slots::new(sizes, Arc::clone(&wake)),
            inflight: InFlight::new(),
            wake,
            cancels: watch::Sender::new(()),
            beat_now: Notify::new(),
            next_end: watch::Sender::new(None),
            late_results: AtomicU64::new(0),
            stop_claiming: CancellationToken::new(),
            lost: CancellationToken::new(),
            over: CancellationToken::new(),
            jobs: TaskTracker::new(),
            holds: Mutex::default(),
        })
    }

    /// Counts a result that came too late, and has it looked into whether the lease is gone with it.
    pub(super) fn count_late_result(&self) {
        self.parts.metrics.late();
        self.late_results.fetch_add(1, Ordering::Relaxed);
        self.beat_now.notify_one();
    }

    /// Results that came too late.
    pub(super) fn late_results(&self) -> u64 {
        self.late_results.load(Ordering::Relaxed)
    }

    /// Notes whether the database lets this node claim.
    pub(super) fn set_draining(&self, is_draining: bool) {
        let was_draining = self.parts.is_draining.swap(is_draining, Ordering::Relaxed);
        if was_draining != is_draining && !self.stop_claiming.is_cancelled() {
            tracing::info!(node_id = %self.node, is_draining, "an admin drained this node, or let it go on");
            self.wake.notify_one();
        }
    }

    /// The limits that decide about a job of this kind.
    pub(super) fn rules(&self, kind: JobKind) -> Rules {
        let config = &self.parts.config;
        let n = &config.numbers;
        let result_max_bytes = if kind.is_analysis() { n.analysis_max_bytes } else { n.transcript_max_bytes };
        Rules { kind: config.kind(kind), crash_loop_losses: n.crash_loop_losses, result_max_bytes }
    }

    /// Claims nothing of this provider for this long, or nothing at all: a claim could not begin.
    pub(super) fn hold(&self, provider: Option<String>, time: Duration) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.insert(provider, Instant::now() + time);
    }

    /// What is not claimed just now.
    pub(super) fn held(&self) -> Held {
        let now = Instant::now();
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, until| *until > now);
        Held {
            everything: holds.get(&None).map(|until| *until - now),
            providers: holds.keys().flatten().cloned().collect(),
            soonest: holds.values().min().map(|until| *until - now),
        }
    }

    /// Claims and runs jobs until asked to stop or the lease is lost.
    pub async fn run(self: &Arc<Self>, shutdown: &CancellationToken, now: &CancellationToken) -> Ended {
        let (ends, received) = mpsc::channel(self.parts.config.numbers.completion_batch_max * 2);
        let tasks = TaskTracker::new();
        tasks.spawn(self.vital(lease::keep(Arc::clone(self))));
        tasks.spawn(self.beside(lease::rescue(Arc::clone(self))));
        tasks.spawn(self.beside(listening::listen(Arc::clone(self))));
        tasks.spawn(self.beside(running::watch_cancels(Arc::clone(self))));
        tasks.spawn(self.beside(maintenance::tidy(Arc::clone(self))));
        tasks.spawn(self.beside(staleness::detect(Arc::clone(self))));
        let writer = tasks.spawn(self.vital(writing::write(Arc::clone(self), received)));
        let claimer = tasks.spawn(self.vital(claiming::claim(Arc::clone(self), ends)));

        let ended = tokio::select! {
            () = shutdown.cancelled() => Ended::Shutdown,
            () = self.lost.cancelled() => Ended::LeaseLost,
        };
        self.stop_claiming.cancel();
        if ended == Ended::Shutdown {
            self.drain(now).await;
        }
        // Without a lease others may run these jobs at any moment: no grace.
        let kill = async {
            self.lost.cancelled().await;
            self.parts.executor.kill_all().await;
        };
        let patience = async {
            if ended == Ended::Shutdown {
                tokio::time::sleep(self.sign_off_max()).await;
                tracing::warn!(node_id = %self.node, "the database does not take back what this node holds; it ends with the lease");
                // The writer drops what it cannot write.
                self.lost.cancel();
            }
            std::future::pending().await
        };
        tokio::select! {
            () = self.give_back(claimer, writer) => {}
            () = async { kill.await; std::future::pending().await } => {}
            () = patience => {}
        }
        if self.lost.is_cancelled() {
            // The jobs may have come back before their processes were gone: the next session must not meet these.
            self.parts.executor.kill_all().await;
        }
        self.over.cancel();
        tasks.close();
        tasks.wait().await;
        if ended == Ended::Shutdown && !self.lost.is_cancelled() {
            match timeout(lease_term(&self.parts), self.parts.lease_store.remove_node(self.node)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, node_id = %self.node, "cannot sign off; the lease will run out")
                }
                Err(_) => {
                    tracing::warn!(node_id = %self.node, "signing off takes too long; the lease runs out")
                }
            }
        }
        ended
    }

    /// Runs a task without which the node cannot go on: should it panic, the session gives up its lease.
    fn vital<T: Future<Output = ()>>(&self, task: T) -> impl Future<Output = ()> + use<T> {
        let end = GiveUpOnPanic(self.lost.clone());
        async move {
            task.await;
            drop(end);
        }
    }

    /// Runs a vital task that leaves nothing half done wherever it is left: it ends with the session, also when the
    /// database is silent.
    fn beside<T: Future<Output = ()>>(&self, task: T) -> impl Future<Output = ()> + use<T> {
        let over = self.over.clone();
        self.vital(async move {
            tokio::select! {
                () = task => {}
                () = over.cancelled() => {}
            }
        })
    }

    /// How long a node that stops may take to give its jobs back: their workers' graces, and one more try to write.
    fn sign_off_max(&self) -> Duration {
        let n = &self.parts.config.numbers;
        Duration::from_millis(n.worker_cancel_grace_ms + n.worker_term_grace_ms + n.database_silence_ms)
    }

    /// Stops what runs, and waits until the end of everything is on record.
    async fn give_back(&self, claimer: JoinHandle<()>, writer: JoinHandle<()>) {
        self.inflight.stop_all(StopReason::Release);
        // The claimer first: while it lives it may still begin what it has claimed, and it holds the writer's channel.
        join(claimer, "claimer").await;
        self.inflight.stop_all(StopReason::Release);
        self.jobs.close();
        self.jobs.wait().await;
        join(writer, "writer").await;
    }

    /// Lets running jobs finish within the grace time.
    async fn drain(&self, now: &CancellationToken) {
        let grace = Duration::from_millis(self.parts.config.numbers.shutdown_grace_ms);
        let drained = async {
            match self.parts.lease_store.stop_node(self.node).await {
                // From here on nothing is claimed: a claim that was on its way has committed.
                Ok(()) => {
                    tracing::info!(node_id = %self.node, running = self.inflight.len(), ?grace, "draining")
                }
                Err(error) => {
                    tracing::warn!(%error, node_id = %self.node, "cannot mark the node as draining; it claims nothing all the same")
                }
            }
            self.inflight.drained().await;
        };
        tokio::select! {
            () = drained => {}
            () = tokio::time::sleep(grace) => {
                tracing::info!(node_id = %self.node, running = self.inflight.len(), "grace time is over; jobs are given back");
            }
            () = now.cancelled() => {}
            () = self.lost.cancelled() => {}
        }
    }
}

/// How long a lease lasts.
pub(super) fn lease_term(parts: &Parts) -> Duration {
    Duration::from_millis(parts.config.numbers.lease_ms)
}

async fn join(task: JoinHandle<()>, name: &str) {
    if let Err(error) = task.await {
        tracing::error!(%error, task = name, "a task of the node panicked");
    }
}

/// Ends the session when it is dropped by a panic.
struct GiveUpOnPanic(CancellationToken);

impl Drop for GiveUpOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}
