//! From what was heard and seen to a job's outcome.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::job::{Outcome, Spent, StopReason, WorkerError};
use super::payload::{self, ResultBody};
use super::protocol::Body;
use super::settings::Settings;
use crate::domain::crash::Cause;
use crate::domain::{ErrorCode, JobKind};

/// Why a worker ends. The first reason stands.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// It wrote what is no message.
    Malformed(String),
    /// It wrote a longer line than this.
    TooLong(usize),
    /// It closed its stdout, perhaps by exiting; `rest` bytes of a message were left over.
    StdoutClosed { rest: usize },
    /// It closed its stdin, perhaps by exiting.
    StdinClosed,
    /// It did not say `hello` in time.
    NoHello,
    /// It did not answer for an overdue job; `alone`: that job had it to itself.
    Unresponsive { alone: bool },
    /// It did not answer a cancel.
    CancelIgnored,
    /// It is not needed any more.
    Retired,
    /// The node must let go of everything at once.
    Aborted,
}

/// What the node asked of a job's worker before it heard of the job's end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// To stop, and why.
    pub stop: Option<StopReason>,
    /// To stop since the deadline passed.
    pub overdue: bool,
}

/// The outcome that a terminal event gives. A result counts whatever was asked meanwhile, and so does an error of
/// the worker's own; `cancelled` means what the node asked for.
///
/// # Errors
/// What is wrong with the event, for people.
pub(super) fn answered(
    settings: &Settings,
    kind: JobKind,
    may_be_unchanged: bool,
    asked: Asked,
    body: &Body<'_>,
) -> Result<Outcome, String> {
    match *body {
        Body::Result(body) => {
            let clean = body.transcript.map(|raw| settings.redacted(raw)).transpose()?;
            let body = ResultBody { transcript: clean.as_deref(), ..body };
            payload::result(kind, may_be_unchanged, body).map(Outcome::Completed)
        }
        Body::Error { error, usage, cost_usd } => {
            let text = error.map(|raw| settings.redact(raw.get()));
            let body = payload::error(text.as_deref(), usage, cost_usd)?;
            Ok(match asked {
                _ if !body.says_cancelled => Outcome::Failed(body.error),
                Asked { stop: Some(reason), .. } => reason.outcome(body.error.spent),
                Asked { overdue: true, .. } => timed_out(body.error.spent),
                Asked { .. } => Outcome::Failed(body.error),
            })
        }
    }
}

/// The deadline passed.
pub(super) fn timed_out(spent: Spent) -> Outcome {
    Outcome::Failed(WorkerError {
        code: ErrorCode::Timeout,
        message: "the attempt took longer than its deadline and was stopped".to_owned(),
        retryable: true,
        retry_after: None,
        http_status: None,
        detail: None,
        spent,
    })
}

/// What the end of a process means for the jobs that were in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Died {
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    pub cause: Cause,
    /// Whether the jobs in flight may be the cause.
    pub blames: bool,
}

impl Died {
    fn by_node(code: ErrorCode, reason: &'static str, message: String) -> Self {
        Self { code, message, cause: Cause::Node(reason), blames: true }
    }

    /// It wrote what is no answer, as `problem` says.
    pub(super) fn malformed(problem: String) -> Self {
        Self::by_node(ErrorCode::MalformedOutput, "malformed output", problem)
    }

    /// It wrote more than it may.
    pub(super) fn too_long(max_bytes: usize) -> Self {
        let message = format!("the worker wrote more than {max_bytes} bytes and was stopped");
        Self::by_node(ErrorCode::MalformedOutput, "endless output", message)
    }

    /// It closed its stdout and ran on.
    fn silent() -> Self {
        let message = "the worker closed its stdout without an answer, ran on, and was stopped".to_owned();
        Self::by_node(ErrorCode::MalformedOutput, "closed stdout", message)
    }

    /// The task that watched it is gone.
    pub(super) fn unwatched() -> Self {
        let message = "the task that supervised the worker ended early".to_owned();
        Self { blames: false, ..Self::by_node(ErrorCode::WorkerCrash, "unobserved end", message) }
    }

    /// The outcome of a job that was in it, and had it to itself if `alone`.
    pub(super) fn outcome(self, alone: bool, suspect: bool) -> Outcome {
        let Self { code, message, cause, blames: _ } = self;
        Outcome::Lost { code, message, alone, cause, suspect }
    }
}

/// How a process ended that nobody ended.
pub(super) fn ended(status: Option<ExitStatus>, unfinished_bytes: usize) -> Died {
    let unfinished = match unfinished_bytes {
        0 => String::new(),
        n => format!(", in the middle of a message of which {n} bytes were written"),
    };
    let Some(status) = status else {
        let message = "the worker's end could not be observed".to_owned();
        return Died { blames: false, ..Died::by_node(ErrorCode::WorkerCrash, "unobserved end", message) };
    };
    let (code, how, cause) = match (status.signal(), status.code()) {
        (None, Some(0)) => {
            (ErrorCode::MalformedOutput, "exited with 0 but gave no answer".to_owned(), Cause::Exit(0))
        }
        (Some(number), _) => {
            let name = nix::sys::signal::Signal::try_from(number)
                .map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
            let why = if name == "SIGXCPU" {
                ": it used more processor time than RUNLANE_ONE_SHOT_CPU_MAX_SECONDS allows"
            } else {
                ""
            };
            (ErrorCode::WorkerCrash, format!("was killed by {name}{why}"), Cause::Signal(name))
        }
        (None, code) => {
            let code = code.unwrap_or_default();
            (ErrorCode::WorkerCrash, format!("exited with {code}"), Cause::Exit(code))
        }
    };
    Died { code, message: format!("the worker {how}{unfinished}"), cause, blames: true }
}

/// Whether a process that was told to end ended of that. One that was dying already, and took its time over it, has a status of
/// its own.
fn obeyed(status: Option<ExitStatus>) -> bool {
    use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
    status.is_none_or(|status| match (status.signal(), status.code()) {
        (Some(signal), _) => [SIGTERM, SIGKILL].map(|s| s as i32).contains(&signal),
        (None, code) => code == Some(0) || code == Some(128 + SIGTERM as i32),
    })
}

/// How a process ended that was told to end some time after it had closed its stdout.
pub(super) fn closed_stdout(status: Option<ExitStatus>, unfinished_bytes: usize) -> Died {
    if obeyed(status) { Died::silent() } else { ended(status, unfinished_bytes) }
}

/// What the death of a warm worker means for the jobs left in it.
pub(super) fn died(cause: Option<&Ending>, status: Option<ExitStatus>, by_itself: bool) -> Died {
    use ErrorCode::{Protocol, WorkerCrash};
    let text = match cause {
        Some(Ending::Malformed(problem)) => {
            return Died::malformed(format!("the worker was stopped: {problem}"));
        }
        Some(Ending::TooLong(max_bytes)) => return Died::too_long(*max_bytes),
        Some(Ending::StdoutClosed { rest }) if !by_itself => return closed_stdout(status, *rest),
        Some(Ending::StdinClosed) if !by_itself && obeyed(status) => {
            let message = "the worker closed its stdin, ran on, and was stopped".to_owned();
            return Died::by_node(Protocol, "closed stdin", message);
        }
        Some(Ending::CancelIgnored) => {
            let message = "the worker did not answer the cancel of another job and was stopped".to_owned();
            return Died { blames: false, ..Died::by_node(WorkerCrash, "ignored cancel", message) };
        }
        Some(Ending::Unresponsive { .. }) => "did not answer for an overdue job",
        Some(Ending::NoHello) => "did not say hello in time",
        Some(Ending::Retired | Ending::Aborted) => "is not needed any more",
        Some(Ending::StdoutClosed { rest }) => return Died { blames: true, ..ended(status, *rest) },
        Some(Ending::StdinClosed) | None => return ended(status, 0),
    };
    Died::by_node(WorkerCrash, text, format!("the worker {text} and was stopped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_signal_or_code() {
        let told = |raw, bytes| {
            let died = ended(Some(ExitStatus::from_raw(raw)), bytes);
            (died.code, died.message)
        };
        assert_eq!(told(9, 0), (ErrorCode::WorkerCrash, "the worker was killed by SIGKILL".into()));
        assert_eq!(told(3 << 8, 0), (ErrorCode::WorkerCrash, "the worker exited with 3".into()));
        let (code, message) = told(0, 7);
        assert_eq!(code, ErrorCode::MalformedOutput);
        assert!(message.ends_with("of which 7 bytes were written"), "{message}");
    }

    #[test]
    fn who_was_dying_when_told_to_end_has_an_end_of_its_own() {
        let closed = Ending::StdoutClosed { rest: 0 };
        let told = |raw| died(Some(&closed), Some(ExitStatus::from_raw(raw)), false);
        for (raw, says) in [(11, "was killed by SIGSEGV"), (3 << 8, "exited with 3")] {
            assert_eq!(
                (told(raw).code, told(raw).message),
                (ErrorCode::WorkerCrash, format!("the worker {says}"))
            );
        }
        for raw in [15, 9, 0, 143 << 8] {
            assert_eq!(told(raw), Died::silent());
        }
    }
}
