//! From what was heard and seen to a job's outcome.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde_json::value::RawValue;

use super::job::{Outcome, StopReason, WorkerError};
use super::payload;
use super::protocol::Body;
use super::settings::Settings;
use super::worker::Ending;
use crate::domain::{ErrorCode, JobKind};

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
    asked: Asked,
    body: &Body<'_>,
) -> Result<Outcome, String> {
    match *body {
        Body::Result { transcript, analysis } => {
            payload::result(kind, transcript, analysis).map(Outcome::Completed)
        }
        Body::Error { error, usage } => {
            let text = error.map(|raw| settings.redact(raw.get()));
            let body = payload::error(text.as_deref(), usage)?;
            Ok(match asked {
                _ if !body.says_cancelled => Outcome::Failed(body.error),
                Asked { stop: Some(reason), .. } => reason.outcome(body.error.usage),
                Asked { overdue: true, .. } => timed_out(body.error.usage),
                Asked { .. } => Outcome::Failed(body.error),
            })
        }
    }
}

/// The deadline passed.
pub(super) fn timed_out(usage: Option<Box<RawValue>>) -> Outcome {
    Outcome::Failed(WorkerError {
        code: ErrorCode::Timeout,
        message: "the attempt took longer than its deadline and was stopped".to_owned(),
        retryable: true,
        retry_after: None,
        http_status: None,
        detail: None,
        usage,
    })
}

/// How a process ended that nobody ended, as code and text.
pub(super) fn ended(status: Option<ExitStatus>, unfinished_bytes: usize) -> (ErrorCode, String) {
    let unfinished = match unfinished_bytes {
        0 => String::new(),
        n => format!(", in the middle of a message of which {n} bytes were written"),
    };
    match status {
        None => (ErrorCode::WorkerCrash, "the worker's end could not be observed".to_owned()),
        Some(status) if status.success() => {
            (ErrorCode::MalformedOutput, format!("the worker exited with 0 but gave no answer{unfinished}"))
        }
        Some(status) => {
            let how = match (status.signal(), status.code()) {
                (Some(number), _) => match nix::sys::signal::Signal::try_from(number) {
                    Ok(signal) => format!("was killed by {signal}"),
                    Err(_) => format!("was killed by signal {number}"),
                },
                (None, code) => format!("exited with {}", code.unwrap_or_default()),
            };
            (ErrorCode::WorkerCrash, format!("the worker {how}{unfinished}"))
        }
    }
}

/// What the death of a warm worker means for the jobs left in it: code, message, and whether the jobs in flight may be the cause.
pub(super) fn died(
    cause: Option<&Ending>,
    status: Option<ExitStatus>,
    by_itself: bool,
) -> (ErrorCode, String, bool) {
    use ErrorCode::{MalformedOutput, Protocol, WorkerCrash};
    let text = match cause {
        Some(Ending::Malformed(problem)) => {
            return (MalformedOutput, format!("the worker was stopped: {problem}"), true);
        }
        Some(Ending::StdoutClosed { .. }) if !by_itself => {
            let message = "the worker closed its stdout, ran on, and was stopped".to_owned();
            return (MalformedOutput, message, true);
        }
        Some(Ending::StdinClosed) if !by_itself => {
            let message = "the worker closed its stdin, ran on, and was stopped".to_owned();
            return (Protocol, message, true);
        }
        Some(Ending::Unresponsive { .. }) => "did not answer for an overdue job",
        Some(Ending::CancelIgnored) => {
            let message = "the worker did not answer the cancel of another job and was stopped".to_owned();
            return (WorkerCrash, message, false);
        }
        Some(Ending::NoHello) => "did not say hello in time",
        Some(Ending::Retired | Ending::Aborted) => "is not needed any more",
        Some(Ending::StdoutClosed { rest }) => {
            let (code, message) = ended(status, *rest);
            return (code, message, true);
        }
        Some(Ending::StdinClosed) | None => {
            let (code, message) = ended(status, 0);
            return (code, message, status.is_some());
        }
    };
    (WorkerCrash, format!("the worker {text} and was stopped"), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_signal_or_code() {
        let told = |raw, bytes| ended(Some(ExitStatus::from_raw(raw)), bytes);
        assert_eq!(told(9, 0), (ErrorCode::WorkerCrash, "the worker was killed by SIGKILL".into()));
        assert_eq!(told(3 << 8, 0), (ErrorCode::WorkerCrash, "the worker exited with 3".into()));
        let (code, message) = told(0, 7);
        assert_eq!(code, ErrorCode::MalformedOutput);
        assert!(message.ends_with("of which 7 bytes were written"), "{message}");
    }
}
