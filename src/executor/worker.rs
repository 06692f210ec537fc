//! One warm worker as its jobs see it: what is in flight, what waits to be written, and why it ends.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::{Notify, oneshot};

use super::job::{Finished, Job, Outcome, Spent, StopReason};
use super::protocol::{self, Body, Event};
use super::settings::Settings;
use super::streams::Tail;
use super::verdict::{self, Asked, Died, Ending};
use super::{Counters, locked};
use crate::domain::JobKind;
use crate::domain::job::Claim;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Dead,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    kind: JobKind,
    reply: oneshot::Sender<Finished>,
    /// Where its line begins in all that was ever queued.
    begins_at: u64,
    asked: Asked,
    /// Worked on, as its worker said after it was overdue.
    alive: bool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    in_flight: HashMap<String, Entry>,
    outgoing: Vec<u8>,
    queued_bytes: u64,
    written_bytes: u64,
    /// A job found no room.
    starved: bool,
    close_stdin: bool,
    settled: u64,
    ending: Option<Ending>,
}

impl State {
    /// Whether the process may have seen a job: some byte of its line went into the pipe.
    const fn seen(&self, entry: &Entry) -> bool {
        entry.begins_at < self.written_bytes
    }

    fn seen_count(&self) -> usize {
        self.in_flight.values().filter(|entry| self.seen(entry)).count()
    }

    /// [`Self::seen_count`] is 1, without counting further than needed.
    fn seen_count_is_one(&self) -> bool {
        self.in_flight.values().filter(|entry| self.seen(entry)).take(2).count() == 1
    }

    fn queue(&mut self, push: impl FnOnce(&mut Vec<u8>)) {
        let before = self.outgoing.len();
        push(&mut self.outgoing);
        self.queued_bytes += (self.outgoing.len() - before) as u64;
    }
}

/// What came of trying to give a job to a worker.
pub(super) enum Submitted {
    /// It is in flight; the answer comes here.
    InFlight(oneshot::Receiver<Finished>),
    /// No room in the queue; `changed` tells when there is.
    Full,
    /// Not ready, or ending.
    Closed,
    /// A job of the same id is in flight.
    SameId,
}

/// How a worker's life ended, as far as starting others is concerned.
#[derive(Debug)]
pub(super) struct Death {
    /// It got no job, and was not ended on purpose: starting another at once would not help.
    pub barren: bool,
    /// What happened.
    pub message: String,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub settings: Arc<Settings>,
    counters: Arc<Counters>,
    /// Told when the pool should look again.
    changed: Arc<Notify>,
    pub pid: OnceLock<u32>,
    pub tail: Tail,
    /// `hello` was heard.
    pub ready: Notify,
    /// `ending` was set.
    pub ends: Notify,
    /// Do not wait for anything.
    pub aborts: Notify,
    written_to: Notify,
    state: Mutex<State>,
}

impl Worker {
    pub fn new(settings: Arc<Settings>, counters: Arc<Counters>, changed: Arc<Notify>) -> Self {
        let tail = Tail::new(&settings);
        Self {
            settings,
            counters,
            changed,
            pid: OnceLock::new(),
            tail,
            ready: Notify::new(),
            ends: Notify::new(),
            aborts: Notify::new(),
            written_to: Notify::new(),
            state: Mutex::new(State {
                phase: Phase::Starting,
                in_flight: HashMap::new(),
                outgoing: Vec::new(),
                queued_bytes: 0,
                written_bytes: 0,
                starved: false,
                close_stdin: false,
                settled: 0,
                ending: None,
            }),
        }
    }

    /// Jobs in flight; `None` unless it takes jobs.
    pub fn load(&self) -> Option<usize> {
        let state = locked(&self.state);
        (state.phase == Phase::Ready && state.ending.is_none()).then_some(state.in_flight.len())
    }

    /// Jobs in flight, whatever its state.
    pub fn in_flight(&self) -> usize {
        locked(&self.state).in_flight.len()
    }

    /// Whether it answered any job yet.
    pub fn has_settled(&self) -> bool {
        locked(&self.state).settled > 0
    }

    pub fn submit(&self, job: &Job) -> Submitted {
        let mut state = locked(&self.state);
        if state.phase != Phase::Ready || state.ending.is_some() {
            return Submitted::Closed;
        }
        if state.in_flight.contains_key(&job.job_id) {
            return Submitted::SameId;
        }
        let waiting = state.outgoing.len();
        if waiting > 0 && waiting + job.request.len() > self.settings.queue_max_bytes {
            state.starved = true;
            return Submitted::Full;
        }
        let (reply, answer) = oneshot::channel();
        let entry = Entry {
            claim: job.claim,
            kind: job.kind,
            reply,
            begins_at: state.queued_bytes,
            asked: Asked::default(),
            alive: false,
        };
        state.queue(|out| protocol::push_job(out, &job.request));
        state.in_flight.insert(job.job_id.clone(), entry);
        drop(state);
        self.written_to.notify_one();
        Submitted::InFlight(answer)
    }

    /// Asks the worker to cancel a job that is to stop (`Some`) or overdue (`None`), each once.
    pub fn cancel(&self, job_id: &str, reason: Option<StopReason>) {
        let mut state = locked(&self.state);
        let Some(entry) = state.in_flight.get_mut(job_id) else { return };
        let stops_already = entry.asked.stop.is_some();
        match reason {
            Some(reason) => entry.asked.stop = Some(reason),
            None => entry.asked.overdue = true,
        }
        if !stops_already {
            state.queue(|out| protocol::push_cancel(out, job_id, reason.is_none()));
            drop(state);
            self.written_to.notify_one();
        }
    }

    /// Whether the worker has said of an overdue job, since it was asked to stop it, that an answer is coming.
    pub fn asks_for_time(&self, job_id: &str) -> bool {
        let state = locked(&self.state);
        state.in_flight.get(job_id).is_some_and(|entry| entry.asked.stop.is_none() && entry.alive)
    }

    /// The worker had its time to answer for this job: the process must go.
    pub fn give_up_on(&self, job_id: &str) {
        let state = locked(&self.state);
        let Some(entry) = state.in_flight.get(job_id) else { return };
        let ending = match entry.asked.stop {
            Some(_) => Ending::CancelIgnored,
            None => Ending::Unresponsive { alone: state.seen(entry) && state.seen_count() == 1 },
        };
        drop(state);
        self.end(ending);
    }

    /// Decides that the worker ends; it gets no more jobs.
    pub fn end(&self, ending: Ending) {
        if matches!(ending, Ending::Aborted) {
            self.aborts.notify_one();
        }
        let mut state = locked(&self.state);
        if state.ending.is_some() || state.phase == Phase::Dead {
            return;
        }
        if matches!(ending, Ending::Retired) {
            state.queue(protocol::push_shutdown);
            state.close_stdin = true;
        }
        state.ending = Some(ending);
        drop(state);
        self.written_to.notify_one();
        self.ends.notify_one();
        self.changed.notify_waiters();
    }

    /// How long an ending worker may take to exit by itself before it gets SIGTERM.
    pub fn patience(&self) -> Duration {
        match locked(&self.state).ending {
            // Both come with an ordinary exit too.
            Some(Ending::StdoutClosed { .. } | Ending::StdinClosed) => self.settings.term_grace,
            Some(Ending::Retired) => self.settings.cancel_grace,
            _ => Duration::ZERO,
        }
    }

    /// Takes in one line of stdout.
    pub fn hear(&self, line: &[u8]) -> ControlFlow<()> {
        let event = std::str::from_utf8(line)
            .map_err(|e| format!("its stdout is not UTF-8 ({e})"))
            .and_then(protocol::parse);
        match event {
            Ok(Event::Hello) => {
                let mut state = locked(&self.state);
                if state.phase == Phase::Starting {
                    state.phase = Phase::Ready;
                    drop(state);
                    self.ready.notify_one();
                    self.changed.notify_waiters();
                }
                ControlFlow::Continue(())
            }
            Ok(_) if locked(&self.state).phase == Phase::Starting => {
                self.malformed("it spoke before it said hello".to_owned())
            }
            Ok(Event::Progress) => ControlFlow::Continue(()),
            Ok(Event::Heartbeat { job_id }) => {
                let mut state = locked(&self.state);
                if let Some(entry) = job_id.and_then(|id| state.in_flight.get_mut(id.as_ref())) {
                    entry.alive = entry.asked.overdue;
                }
                ControlFlow::Continue(())
            }
            Ok(Event::Terminal { job_id, body }) => {
                self.settle(&job_id, &body);
                ControlFlow::Continue(())
            }
            Err(problem) => self.malformed(problem),
        }
    }

    fn malformed(&self, problem: String) -> ControlFlow<()> {
        self.end(Ending::Malformed(self.settings.redact(&problem).into_owned()));
        ControlFlow::Break(())
    }

    /// A terminal event ends exactly the job that it names. One of a wrong shape costs that job alone.
    fn settle(&self, job_id: &str, body: &Body<'_>) {
        let mut state = locked(&self.state);
        let alone = state.seen_count_is_one();
        let Some(entry) = state.in_flight.remove(job_id) else {
            drop(state);
            let ignored = self.counters.ignored_events.fetch_add(1, Ordering::Relaxed);
            if ignored.is_power_of_two() || ignored == 0 {
                let pid = self.pid.get();
                tracing::warn!(
                    pid,
                    job_id,
                    total = ignored + 1,
                    "a worker answered for a job that it does not have: ignored"
                );
            }
            return;
        };
        state.settled += 1;
        drop(state);
        let outcome = verdict::answered(&self.settings, entry.kind, false, entry.asked, body).unwrap_or_else(
            |problem| Died::malformed(self.settings.redact(&problem).into_owned()).outcome(alone, true),
        );
        self.reply(entry, outcome);
    }

    fn reply(&self, entry: Entry, outcome: Outcome) {
        let finished = Finished {
            claim: entry.claim,
            outcome,
            stderr_tail: self.tail.text(&self.settings),
            worker_pid: self.pid.get().copied(),
        };
        if entry.reply.send(finished).is_err() {
            tracing::debug!(claim = %entry.claim, "nobody waits for this job's outcome any more");
        }
    }

    /// Writes what is queued, all of it at once, until stdin is to be closed or cannot be written.
    pub async fn write(&self, mut stdin: ChildStdin) {
        loop {
            let (batch, close, starved) = {
                let mut state = locked(&self.state);
                let batch = std::mem::take(&mut state.outgoing);
                (batch, state.close_stdin, std::mem::take(&mut state.starved))
            };
            if starved {
                self.changed.notify_waiters();
            }
            let mut rest: &[u8] = &batch;
            while !rest.is_empty() {
                match stdin.write(rest).await {
                    Ok(n) if n > 0 => {
                        rest = &rest[n..];
                        locked(&self.state).written_bytes += n as u64;
                    }
                    Ok(_) | Err(_) => return self.end(Ending::StdinClosed),
                }
            }
            if batch.is_empty() {
                if close {
                    return;
                }
                self.written_to.notified().await;
            }
        }
    }

    /// The process is gone: gives every job that is left its outcome. `by_itself`: nobody killed it.
    pub fn bury(&self, status: Option<ExitStatus>, by_itself: bool) -> Death {
        let mut state = locked(&self.state);
        let said_hello = state.phase != Phase::Starting;
        state.phase = Phase::Dead;
        let seen_count = state.seen_count();
        let left: Vec<(bool, Entry)> = {
            let written_bytes = state.written_bytes;
            state.in_flight.drain().map(|(_, entry)| (entry.begins_at < written_bytes, entry)).collect()
        };
        let (cause, settled) = (state.ending.clone(), state.settled);
        drop(state);
        let died = verdict::died(cause.as_ref(), status, by_itself);
        let on_purpose = matches!(cause, Some(Ending::Retired | Ending::Aborted | Ending::CancelIgnored));
        for (seen, entry) in left {
            let outcome = match (&cause, entry.asked.stop) {
                (_, Some(reason)) => reason.outcome(Spent::default()),
                (Some(Ending::Retired | Ending::Aborted), None) => {
                    StopReason::Release.outcome(Spent::default())
                }
                (Some(Ending::Unresponsive { alone: true }), None) if entry.asked.overdue => {
                    verdict::timed_out(Spent::default())
                }
                _ => died.clone().outcome(seen && seen_count == 1, seen && died.blames),
            };
            self.reply(entry, outcome);
        }
        Death {
            barren: !on_purpose && (!said_hello || (settled == 0 && seen_count == 0)),
            message: died.message,
        }
    }
}
