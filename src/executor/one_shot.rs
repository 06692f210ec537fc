//! A process of its own for one job: the request on stdin, one answer on stdout, exit.

use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{FusedFuture, join3};
use nix::sys::signal::Signal;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::job::{Finished, Job, Outcome, Spent, StopReason};
use super::protocol::{self, Event};
use super::settings::Settings;
use super::streams::{ReadEnd, Tail, read_all};
use super::verdict::{self, Asked, Died};
use super::workplace::Workplace;
use super::{Counters, locked, unsent};
use crate::process::{Group, Pipes};

/// The one-shot processes of one kind: how many there may be at once, and what became of the last starts.
#[derive(Debug)]
pub(super) struct OneShots {
    pub permits: Semaphore,
    starts: Mutex<Starts>,
}

#[derive(Debug, Default)]
struct Starts {
    /// Failed starts in a row.
    failures: u32,
    blocked: Option<(Instant, String)>,
}

impl OneShots {
    pub fn new(settings: &Settings) -> Self {
        Self { permits: Semaphore::new(settings.one_shot_workers), starts: Mutex::default() }
    }

    /// How many starts have failed in a row, if one may be tried now; else why not, and for how long.
    fn may_start(&self) -> Result<u32, (String, Duration)> {
        let starts = locked(&self.starts);
        match &starts.blocked {
            Some((until, message)) if *until > Instant::now() => {
                Err((message.clone(), until.saturating_duration_since(Instant::now())))
            }
            _ => Ok(starts.failures),
        }
    }

    fn has_started(&self) {
        *locked(&self.starts) = Starts::default();
    }

    /// Notes a failed start; returns how long no other is tried. `before` failed before it began: starts that failed at
    /// the same time are one failure.
    fn has_failed(&self, settings: &Settings, before: u32, message: &str) -> Duration {
        let mut starts = locked(&self.starts);
        if starts.failures <= before {
            starts.failures = starts.failures.saturating_add(1);
        }
        let wait = settings.restart_delay(starts.failures);
        starts.blocked = Some((Instant::now() + wait, message.to_owned()));
        wait
    }
}

/// Why the node ended the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Stop(StopReason),
    Overdue,
    Aborted,
    /// It wrote more than allowed.
    TooLong,
    /// It closed its stdout and ran on.
    StdoutClosed,
}

/// Runs the job; returns when the process is reaped.
pub(super) async fn run(
    settings: &Settings,
    workplace: &Workplace,
    counters: &Counters,
    one_shots: &OneShots,
    job: &Job,
    interrupted: impl Future<Output = StopReason>,
    mut aborts: watch::Receiver<u64>,
) -> Finished {
    let failures = match one_shots.may_start() {
        Ok(failures) => failures,
        Err((message, retry_after)) => return unsent(job, Outcome::Unstartable { message, retry_after }),
    };
    let (group, pipes, desk) = match workplace.start(settings, false).await {
        Ok(started) => started,
        Err(error) => {
            let message = format!("the worker could not be started: {error}");
            let retry_after = one_shots.has_failed(settings, failures, &message);
            return unsent(job, Outcome::Unstartable { message, retry_after });
        }
    };
    one_shots.has_started();
    counters.one_shots.fetch_add(1, Ordering::Relaxed);
    let pid = group.pid();
    let tail = Tail::new(settings);
    let output = Mutex::new(Vec::new());
    let (tell, end) = oneshot::channel();
    let lived = {
        let mut pumps = pin!(pump(settings, job, pipes, &tail, &output, tell).fuse());
        let mut life = pin!(live(settings, job, group, interrupted, &mut aborts, end));
        let lived = tokio::select! {
            lived = &mut life => lived,
            () = &mut pumps => life.await,
        };
        // What it wrote last is still in the pipes. Whoever left its group may hold them open for ever.
        if !pumps.is_terminated() && tokio::time::timeout(settings.term_grace, pumps).await.is_err() {
            tracing::warn!(pid, "a worker is gone, but something that it started keeps its streams open");
        }
        lived
    };
    let (cut, status) = match lived {
        Ok((cut, status)) => (cut, Some(status)),
        Err(error) => {
            tracing::error!(pid, %error, "a worker's end could not be observed");
            (None, None)
        }
    };
    desk.clear().await;
    let output = output.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Finished {
        claim: job.claim,
        outcome: judge(settings, counters, job, cut, status, &output),
        stderr_tail: tail.text(settings),
        worker_pid: Some(pid),
    }
}

/// Writes the request, reads the answer and stderr; tells how stdout ended as soon as it has.
async fn pump(
    settings: &Settings,
    job: &Job,
    Pipes { mut stdin, stdout, stderr }: Pipes,
    tail: &Tail,
    output: &Mutex<Vec<u8>>,
    tell: oneshot::Sender<ReadEnd>,
) {
    let writing = async {
        let mut line = Vec::with_capacity(job.request.len() + 1);
        protocol::push_job(&mut line, &job.request);
        if let Err(error) = stdin.write_all(&line).await {
            // It may have answered all the same; what it wrote and how it exits decide.
            tracing::debug!(claim = %job.claim, %error, "a worker did not read its whole request");
        }
        drop(stdin);
    };
    let reading = async {
        let end = read_all(stdout, settings.line_max_bytes, output).await.unwrap_or_else(|error| {
            tracing::debug!(claim = %job.claim, %error, "a worker's stdout cannot be read any further");
            ReadEnd::Eof { rest: 0 }
        });
        // Nobody listens when the process has been cut already.
        drop(tell.send(end));
    };
    join3(writing, reading, tail.drain(stderr)).await;
}

/// Waits until the process has ended, or ends it; then reaps it.
async fn live(
    settings: &Settings,
    job: &Job,
    mut group: Group,
    interrupted: impl Future<Output = StopReason>,
    aborts: &mut watch::Receiver<u64>,
    mut end: oneshot::Receiver<ReadEnd>,
) -> std::io::Result<(Option<Cut>, ExitStatus)> {
    let closed = async {
        match (&mut end).await {
            Ok(ReadEnd::TooLong) => Cut::TooLong,
            // An ordinary exit closes stdout too.
            _ => {
                tokio::time::sleep(settings.term_grace).await;
                Cut::StdoutClosed
            }
        }
    };
    let mut cut = tokio::select! {
        ended = group.exited() => { ended?; None }
        reason = interrupted => Some(Cut::Stop(reason)),
        () = tokio::time::sleep(job.deadline + settings.cancel_grace) => Some(Cut::Overdue),
        cut = closed => Some(cut),
        Ok(()) = aborts.changed() => Some(Cut::Aborted),
    };
    let grace = if cut == Some(Cut::Aborted) { Duration::ZERO } else { settings.term_grace };
    if cut.is_some() {
        let killed = tokio::select! {
            ended = group.end(grace) => { ended?; false }
            Ok(()) = aborts.changed() => true,
        };
        if killed {
            group.signal(Signal::SIGKILL)?;
        }
    } else if let Ok(ReadEnd::TooLong) = end.try_recv() {
        // The broken pipe ended it before the node could.
        cut = Some(Cut::TooLong);
    }
    Ok((cut, group.reap().await?))
}

/// The first terminal event decides, whatever happened to the process after it; without one the way it ended does.
fn judge(
    settings: &Settings,
    counters: &Counters,
    job: &Job,
    cut: Option<Cut>,
    status: Option<ExitStatus>,
    output: &[u8],
) -> Outcome {
    let asked = Asked {
        stop: match cut {
            Some(Cut::Stop(reason)) => Some(reason),
            Some(Cut::Aborted) => Some(StopReason::Release),
            _ => None,
        },
        overdue: cut == Some(Cut::Overdue),
    };
    let lost = |mut died: Died| {
        died.message = settings.redact(&died.message).into_owned();
        let blames = died.blames;
        died.outcome(true, blames)
    };
    let heard = listen(settings, counters, job, asked, output);
    match (heard, cut) {
        (Heard::Answer(outcome), _) => outcome,
        (_, Some(Cut::Stop(reason))) => reason.outcome(Spent::default()),
        (_, Some(Cut::Aborted)) => StopReason::Release.outcome(Spent::default()),
        (_, Some(Cut::Overdue)) => verdict::timed_out(Spent::default()),
        (_, Some(Cut::TooLong)) => lost(Died::too_long(settings.line_max_bytes)),
        (Heard::Garbage(problem), _) => {
            lost(Died::malformed(format!("the worker gave no answer: {problem}")))
        }
        (Heard::Nothing { unfinished_bytes }, Some(Cut::StdoutClosed)) => {
            lost(verdict::closed_stdout(status, unfinished_bytes))
        }
        (Heard::Nothing { unfinished_bytes }, None) => lost(verdict::ended(status, unfinished_bytes)),
    }
}

enum Heard {
    Answer(Outcome),
    Garbage(String),
    /// No terminal event; so many bytes of a message that was not finished.
    Nothing {
        unfinished_bytes: usize,
    },
}

/// Reads the values of `output`, one after the other: a worker in another language may well print over many lines.
fn listen(settings: &Settings, counters: &Counters, job: &Job, asked: Asked, output: &[u8]) -> Heard {
    let text = match std::str::from_utf8(output) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            // Cut off within a character: what comes before may hold the answer.
            std::str::from_utf8(&output[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return Heard::Garbage(format!("its stdout is not UTF-8 ({error})")),
    };
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut answer = None;
    loop {
        let at = values.byte_offset();
        let problem = match values.next() {
            None => break,
            Some(Ok(value)) => match protocol::parse(value.get()) {
                Ok(Event::Hello | Event::Progress | Event::Heartbeat { .. }) => continue,
                Ok(Event::Terminal { job_id, body }) if answer.is_none() && job_id == job.job_id.as_str() => {
                    answer = Some(verdict::answered(settings, job.kind, job.may_be_unchanged, asked, &body));
                    continue;
                }
                Ok(Event::Terminal { .. }) => "a second answer, or one for another job".to_owned(),
                Err(problem) if answer.is_none() => return Heard::Garbage(problem),
                Err(problem) => problem,
            },
            Some(Err(error)) if error.is_eof() && answer.is_none() => {
                return Heard::Nothing { unfinished_bytes: output.len() - at };
            }
            Some(Err(_)) if answer.is_none() => {
                return Heard::Garbage(format!(
                    "its stdout holds what is no message: {}",
                    protocol::excerpt(text[at..].trim())
                ));
            }
            Some(Err(error)) => {
                ignored(counters, job, &error.to_string());
                break;
            }
        };
        ignored(counters, job, &problem);
    }
    match answer {
        Some(Ok(outcome)) => Heard::Answer(outcome),
        Some(Err(problem)) => Heard::Garbage(problem),
        None => Heard::Nothing { unfinished_bytes: 0 },
    }
}

fn ignored(counters: &Counters, job: &Job, problem: &str) {
    counters.ignored_events.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(claim = %job.claim, problem, "ignored something that a one-shot worker wrote");
}
