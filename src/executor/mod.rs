//! Runs jobs in Python processes over the worker protocol. Knows no database.
//!
//! Probes share a few *warm* processes, each with many jobs in flight; analyses, and jobs suspected of killing their
//! worker, get a *one-shot* process each. [`Executor::run`] answers every job with exactly one [`Finished`], and only
//! when the worker really answered or its process is really gone. The rules of blame:
//!
//! - What a terminal event says is the job's outcome. One of a wrong shape costs the job that it names, as
//!   `malformed_output`; a line that is no message costs the whole process, since nobody can tell whose it was.
//! - When a process dies, the jobs that it had seen are lost and suspect, and `alone` tells whether there was one only.
//!   A job whose line never reached the process is lost without suspicion.
//! - A job past its deadline is asked to stop, then its process is ended. If it had the process to itself, that is a
//!   `timeout`; in a shared process it proves nothing about any one of them, so all are lost and suspect.
//! - A process serves one provider that needs a key, or all that need none: a key reaches nobody else's code.
//! - A process that must go because it ignored a cancel takes its other jobs along; they are not suspect.

mod job;
mod one_shot;
mod payload;
mod pool;
mod protocol;
mod settings;
mod streams;
mod supervise;
mod verdict;
mod worker;
mod workplace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use job::{Finished, Job, Outcome, Spent, Stop, StopReason, Stopper, WorkerError};
pub use payload::{Analysis, Coverage, MESSAGE_MAX_CHARS, Payload, Transcript, Usage};
pub use settings::{Environment, Settings};

use one_shot::OneShots;
use pool::{Placed, Pool};
use verdict::Died;
use worker::Worker;
use workplace::Workplace;

/// Runs jobs. Cheap to share by reference; lives as long as the node.
#[derive(Debug)]
pub struct Executor {
    settings: Arc<Settings>,
    workplace: Arc<Workplace>,
    counters: Arc<Counters>,
    /// Of each provider that has a key or an address of its own.
    providers: BTreeMap<String, Workers>,
    /// Of everybody else.
    shared: Workers,
    probes_alone: OneShots,
    analyses: OneShots,
    draining: CancellationToken,
    aborts: watch::Sender<u64>,
    runs: Gauge,
    processes: Gauge,
}

/// The workers that share an environment, and so the keys in it.
#[derive(Debug)]
struct Workers {
    settings: Arc<Settings>,
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Counters {
    starts: AtomicU64,
    failed_starts: AtomicU64,
    one_shots: AtomicU64,
    ignored_events: AtomicU64,
}

/// What the executor is doing, for metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Warm processes that are not gone yet: process id (none before the start) and jobs in flight.
    pub warm: Vec<(Option<u32>, usize)>,
    /// Jobs within [`Executor::run`].
    pub running: usize,
    /// Processes that are not reaped yet, one-shot ones included.
    pub processes: usize,
    /// Warm processes that were started, ever.
    pub starts: u64,
    /// Of them, those that did not get so far as to see a job.
    pub failed_starts: u64,
    /// One-shot processes that were started, ever.
    pub one_shots: u64,
    /// Terminal events that were ignored: a second one for a job, or one for a job that the worker does not have.
    pub ignored_events: u64,
}

impl Executor {
    /// An executor without processes: they are started when jobs come.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let workplace = Arc::new(Workplace::new(&settings.work_dir));
        let counters = Arc::new(Counters::default());
        let processes = Gauge::default();
        let workers = |settings: Settings| {
            let settings = Arc::new(settings);
            let (workplace, counters) = (Arc::clone(&workplace), Arc::clone(&counters));
            let pool = Pool::new(Arc::clone(&settings), workplace, counters, processes.clone());
            Workers { settings, pool }
        };
        let providers = settings
            .providers
            .keys()
            .map(|name| (name.clone(), workers(settings.of_provider(name))))
            .collect();
        let shared = workers(Settings { providers: BTreeMap::new(), ..settings.clone() });
        let settings = Arc::new(settings);
        Self {
            providers,
            shared,
            probes_alone: OneShots::new(&settings),
            analyses: OneShots::new(&settings),
            settings,
            workplace,
            counters,
            draining: CancellationToken::new(),
            aborts: watch::Sender::new(0),
            runs: Gauge::default(),
            processes,
        }
    }

    /// Ends processes that dead nodes on this machine have left behind, and makes the directory of this one's workers.
    /// The first worker's start does the same.
    ///
    /// # Errors
    /// What the operating system says, with the directory's name.
    pub async fn prepare(&self) -> std::io::Result<()> {
        self.workplace.open().await
    }

    /// Runs one job to its end. Returns when the worker has answered for it or its process is gone.
    ///
    /// Await it to the end: a dropped call asks the worker to cancel and ends it when it does not, but nobody hears.
    pub async fn run(&self, job: Job, mut stop: Stop) -> Finished {
        let _running = self.runs.enter();
        let mut finished = if job.alone || job.kind.is_analysis() {
            self.one_shot(&job, &mut stop).await
        } else {
            self.warm(&job, &mut stop).await
        };
        // A cancel that came while the job was being released is what people asked for.
        if let (Outcome::Released { spent }, Some(reason)) = (&mut finished.outcome, stop.reason()) {
            finished.outcome = reason.outcome(std::mem::take(spent));
        }
        finished
    }

    /// Stops taking jobs, releases those that run, and ends all processes; returns when the last is reaped.
    pub async fn shutdown(&self) {
        self.draining.cancel();
        self.runs.empty().await;
        self.pools().for_each(|pool| pool.close());
        self.processes.empty().await;
    }

    /// Kills every process at once, for a node that may not hold its jobs any longer; they come back `Released`.
    /// Returns when the last process is reaped, so no jobs should be submitted meanwhile.
    pub async fn kill_all(&self) {
        self.aborts.send_modify(|count| *count += 1);
        self.pools().for_each(|pool| pool.abort());
        self.processes.empty().await;
    }

    /// What the executor is doing.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            warm: self.pools().flat_map(|pool| pool.workers()).collect(),
            running: self.runs.count(),
            processes: self.processes.count(),
            starts: self.counters.starts.load(Ordering::Relaxed),
            failed_starts: self.counters.failed_starts.load(Ordering::Relaxed),
            one_shots: self.counters.one_shots.load(Ordering::Relaxed),
            ignored_events: self.counters.ignored_events.load(Ordering::Relaxed),
        }
    }

    fn workers_of(&self, job: &Job) -> &Workers {
        job.provider.as_ref().and_then(|name| self.providers.get(name)).unwrap_or(&self.shared)
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.providers.values().chain([&self.shared]).map(|workers| &workers.pool)
    }

    /// The reason to stop: the job's own, or that this node drains.
    async fn interrupted(&self, stop: &mut Stop) -> StopReason {
        tokio::select! {
            reason = stop.requested() => reason,
            () = self.draining.cancelled() => StopReason::Release,
        }
    }

    async fn one_shot(&self, job: &Job, stop: &mut Stop) -> Finished {
        let mut aborts = self.aborts.subscribe();
        let one_shots = if job.kind.is_analysis() { &self.analyses } else { &self.probes_alone };
        let _permit = tokio::select! {
            biased;
            reason = self.interrupted(stop) => return unsent(job, reason.outcome(Spent::default())),
            Ok(()) = aborts.changed() => return unsent(job, StopReason::Release.outcome(Spent::default())),
            permit = one_shots.permits.acquire() => permit.expect("the semaphore is never closed"),
        };
        let _process = self.processes.enter();
        let interrupted = self.interrupted(stop);
        let settings = &self.workers_of(job).settings;
        one_shot::run(settings, &self.workplace, &self.counters, one_shots, job, interrupted, aborts).await
    }

    async fn warm(&self, job: &Job, stop: &mut Stop) -> Finished {
        let mut aborts = self.aborts.subscribe();
        let placed = tokio::select! {
            biased;
            reason = self.interrupted(stop) => return unsent(job, reason.outcome(Spent::default())),
            placed = self.workers_of(job).pool.place(job) => placed,
            Ok(()) = aborts.changed() => Placed::Closed,
        };
        let (worker, mut answer) = match placed {
            Placed::InFlight(worker, answer) => (worker, answer),
            Placed::SameId => return self.one_shot(job, stop).await,
            Placed::Closed => return unsent(job, StopReason::Release.outcome(Spent::default())),
            Placed::Unstartable(message, retry_after) => {
                return unsent(job, Outcome::Unstartable { message, retry_after });
            }
        };
        let mut guard = Abandoned { worker: &worker, job_id: &job.job_id, armed: true };
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            reason = self.interrupted(stop) => {
                worker.cancel(&job.job_id, Some(reason));
                self.insist(&worker, job, &mut answer, None).await
            }
            () = tokio::time::sleep(job.deadline) => {
                worker.cancel(&job.job_id, None);
                self.insist(&worker, job, &mut answer, Some(stop)).await
            }
        };
        guard.armed = false;
        answer.unwrap_or_else(|_| {
            let lost = Died::unwatched().outcome(false, false);
            Finished { worker_pid: worker.pid.get().copied(), ..unsent(job, lost) }
        })
    }

    /// Gives the worker its grace to answer a cancel, then ends it: twice, if it says that an overdue job was held up and
    /// ends soon. `stop`, while it was not asked to stop yet.
    async fn insist(
        &self,
        worker: &Worker,
        job: &Job,
        answer: &mut tokio::sync::oneshot::Receiver<Finished>,
        mut stop: Option<&mut Stop>,
    ) -> Result<Finished, tokio::sync::oneshot::error::RecvError> {
        let grace = tokio::time::sleep(self.settings.cancel_grace);
        tokio::pin!(grace);
        let (mut waiting, mut extended) = (true, false);
        loop {
            let stopped = async {
                match stop.as_deref_mut() {
                    Some(stop) => self.interrupted(stop).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = &mut *answer => return answer,
                reason = stopped => {
                    worker.cancel(&job.job_id, Some(reason));
                    stop = None;
                }
                () = &mut grace, if waiting => {
                    if !extended && worker.asks_for_time(&job.job_id) {
                        extended = true;
                        grace.as_mut().reset(tokio::time::Instant::now() + self.settings.cancel_grace);
                    } else {
                        worker.give_up_on(&job.job_id);
                        waiting = false;
                    }
                }
            }
        }
    }
}

/// The answer to a job that no process got.
fn unsent(job: &Job, outcome: Outcome) -> Finished {
    Finished { claim: job.claim, outcome, stderr_tail: Arc::from(""), worker_pid: None }
}

/// Stops a job whose caller is gone: nobody would watch its deadline any more.
struct Abandoned<'a> {
    worker: &'a Arc<Worker>,
    job_id: &'a str,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.worker.cancel(self.job_id, Some(StopReason::Release));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (worker, job_id) = (Arc::clone(self.worker), self.job_id.to_owned());
            runtime.spawn(async move {
                tokio::time::sleep(worker.settings.cancel_grace).await;
                worker.give_up_on(&job_id);
            });
        }
    }
}

/// Counts who is inside, and can be waited on until nobody is.
#[derive(Debug, Clone, Default)]
struct Gauge(watch::Sender<usize>);

/// One who is inside, until dropped.
#[derive(Debug)]
struct Entered(watch::Sender<usize>);

impl Gauge {
    fn enter(&self) -> Entered {
        self.0.send_modify(|count| *count += 1);
        Entered(self.0.clone())
    }

    fn count(&self) -> usize {
        *self.0.borrow()
    }

    async fn empty(&self) {
        let mut count = self.0.subscribe();
        // The sender is here, so waiting cannot fail.
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is complete between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
