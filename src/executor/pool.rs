//! The warm workers: starts them when they are needed, gives each job to the least loaded.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::job::{Finished, Job};
use super::settings::Settings;
use super::supervise;
use super::verdict::Ending;
use super::worker::{Death, Submitted, Worker};
use super::workplace::Workplace;
use super::{Counters, Gauge, locked};

/// Where a job went.
pub(super) enum Placed {
    /// In flight in this worker; the answer comes through the channel.
    InFlight(Arc<Worker>, oneshot::Receiver<Finished>),
    /// No worker starts; none is tried before the duration has passed.
    Unstartable(String, Duration),
    /// Every ready worker has a job of the same id in flight.
    SameId,
    /// The pool takes no more jobs.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    /// Every process that is not buried yet.
    workers: Vec<Arc<Worker>>,
    /// Failed starts in a row.
    failures: u32,
    blocked: Option<(Instant, String)>,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Pool {
    settings: Arc<Settings>,
    workplace: Arc<Workplace>,
    counters: Arc<Counters>,
    processes: Gauge,
    changed: Arc<Notify>,
    state: Mutex<State>,
}

impl Pool {
    pub fn new(
        settings: Arc<Settings>,
        workplace: Arc<Workplace>,
        counters: Arc<Counters>,
        processes: Gauge,
    ) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        Arc::new(Self { settings, workplace, counters, processes, changed, state: Mutex::default() })
    }

    /// Gives the job to a worker, waiting for one to start or to have room.
    pub async fn place(self: &Arc<Self>, job: &Job) -> Placed {
        if let Some(placed) = self.try_place(job, true) {
            return placed;
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Register before looking, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(placed) = self.try_place(job, false) {
                return placed;
            }
            changed.await;
        }
    }

    fn try_place(self: &Arc<Self>, job: &Job, may_start: bool) -> Option<Placed> {
        let mut state = locked(&self.state);
        if state.closed {
            return Some(Placed::Closed);
        }
        let mut ready: Vec<(usize, usize)> =
            state.workers.iter().enumerate().filter_map(|(i, w)| Some((w.load()?, i))).collect();
        ready.sort_unstable();
        let all_busy = ready.first().is_none_or(|&(load, _)| load > 0);
        let mut same_id = 0;
        for &(_, index) in &ready {
            let worker = Arc::clone(&state.workers[index]);
            match worker.submit(job) {
                Submitted::InFlight(answer) => {
                    if state.failures > 0 && worker.has_settled() {
                        state.failures = 0;
                    }
                    if all_busy {
                        self.start_one(&mut state);
                    }
                    return Some(Placed::InFlight(worker, answer));
                }
                Submitted::SameId => same_id += 1,
                Submitted::Full | Submitted::Closed => {}
            }
        }
        if same_id > 0 && same_id == ready.len() {
            return Some(Placed::SameId);
        }
        if may_start || state.workers.is_empty() {
            self.start_one(&mut state);
        }
        match &state.blocked {
            Some((until, message)) if state.workers.is_empty() => {
                let wait = until.saturating_duration_since(Instant::now());
                Some(Placed::Unstartable(message.clone(), wait))
            }
            _ => None,
        }
    }

    /// Starts a process if there may be one more and no start failed just now.
    fn start_one(self: &Arc<Self>, state: &mut State) {
        if state.closed || state.workers.len() >= self.settings.warm_workers {
            return;
        }
        if state.blocked.as_ref().is_some_and(|(until, _)| *until > Instant::now()) {
            return;
        }
        state.blocked = None;
        let worker = Arc::new(Worker::new(
            Arc::clone(&self.settings),
            Arc::clone(&self.counters),
            Arc::clone(&self.changed),
        ));
        state.workers.push(Arc::clone(&worker));
        self.counters.starts.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { pool: Arc::clone(self), worker, death: None, _process: self.processes.enter() };
        tokio::spawn(async move {
            let death = supervise::live(Arc::clone(&seat.worker), &seat.pool.workplace).await;
            seat.vacate(death);
        });
    }

    /// Takes no more jobs and lets idle and busy workers end; those that wait for one are told.
    pub fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        state.workers.iter().for_each(|worker| worker.end(Ending::Retired));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Kills every process at once.
    pub fn abort(&self) {
        locked(&self.state).workers.iter().for_each(|worker| worker.end(Ending::Aborted));
    }

    /// Process ids with their jobs in flight.
    pub fn workers(&self) -> Vec<(Option<u32>, usize)> {
        locked(&self.state).workers.iter().map(|w| (w.pid.get().copied(), w.in_flight())).collect()
    }
}

/// A worker's place in the pool; it is free again when this is dropped, whatever became of the task.
struct Seat {
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    death: Option<Death>,
    _process: super::Entered,
}

impl Seat {
    fn vacate(mut self, death: Death) {
        self.death = Some(death);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let death = self.death.take().unwrap_or_else(|| Death {
            barren: true,
            message: "the task that supervised the worker ended early".to_owned(),
        });
        let pid = self.worker.pid.get();
        let mut state = locked(&self.pool.state);
        state.workers.retain(|worker| !Arc::ptr_eq(worker, &self.worker));
        if death.barren && !state.closed {
            state.failures = state.failures.saturating_add(1);
            let wait = self.pool.settings.restart_delay(state.failures);
            let tail = self.worker.tail.text(&self.pool.settings);
            let last_line = tail.lines().rev().find(|line| !line.trim().is_empty());
            let message = match last_line {
                Some(line) => format!("{}; its stderr ends with: {line}", death.message),
                None => death.message,
            };
            tracing::error!(pid, failures = state.failures, ?wait, "a warm worker did not start: {message}");
            state.blocked = Some((Instant::now() + wait, message));
            self.pool.counters.failed_starts.fetch_add(1, Ordering::Relaxed);
        } else {
            tracing::info!(pid, "a warm worker is gone: {}", death.message);
        }
        drop(state);
        self.pool.changed.notify_waiters();
    }
}
