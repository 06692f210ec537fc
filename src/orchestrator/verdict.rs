//! What becomes of an attempt: the contract's table of error codes, applied. No I/O.

use std::time::Duration;

use rand::Rng;

use crate::config::KindPolicy;
use crate::domain::crash::{Cause, Fingerprint};
use crate::domain::job::Claim;
use crate::domain::model_id::may_hold;
use crate::domain::work::{AttemptEnd, AttemptError, AttemptResult, TranscriptResult, Work};
use crate::domain::{AttemptOutcome, Consequence, ErrorCode};
use crate::executor::{Finished, Outcome, Payload, Spent, WorkerError};

/// The limits that decide.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What holds for the job's kind.
    pub kind: KindPolicy,
    /// Losses while alone after which the job is taken for a crash loop.
    pub crash_loop_losses: i16,
    /// Bytes that a result may have.
    pub result_max_bytes: usize,
}

/// The end of a claim that was never begun: the job goes back, and nothing is counted.
pub const fn released(claim: Claim) -> AttemptEnd {
    AttemptEnd {
        claim,
        outcome: AttemptOutcome::Released,
        delay: Duration::ZERO,
        error: None,
        stderr_tail: None,
        usage: None,
        cost_usd: None,
        result: None,
        suspect: false,
        alone: false,
        fingerprint: None,
        holds: false,
    }
}

/// Judges how an attempt of `work` ended.
pub fn judge(work: &Work, finished: Finished, rules: Rules, rng: &mut impl Rng) -> AttemptEnd {
    let stderr = finished.stderr_tail;
    let mut end = AttemptEnd { outcome: AttemptOutcome::Completed, ..released(work.claim) };
    match bounded(finished.outcome, rules) {
        Outcome::Completed(Payload::Transcript(transcript)) => {
            end.usage = transcript.raw_usage;
            end.cost_usd = transcript.cost_usd.map(|amount| amount.to_string());
            end.result = Some(AttemptResult::Transcript(TranscriptResult {
                turns: transcript.turns,
                model_version: transcript.model_version,
                score: transcript.score,
                latency_ms: transcript.latency_ms,
            }));
            return end;
        }
        Outcome::Completed(Payload::Analysis(analysis)) => {
            end.result = Some(AttemptResult::Analysis(analysis.raw));
            return end;
        }
        Outcome::Completed(Payload::Unchanged(raw)) => {
            end.result = Some(AttemptResult::Analysis(raw));
            return end;
        }
        Outcome::Failed(error) => failed(work, error, rules, rng, &mut end),
        Outcome::Lost { code, message, alone, cause, suspect } => {
            // Whoever is known not to be the cause is not blamed for having been there alone.
            let alone = alone && suspect;
            let losses = work.losses_alone.saturating_add(1);
            let gives_up = alone && losses >= rules.crash_loop_losses;
            let fingerprint = suspect.then(|| Fingerprint::of(&cause, &stderr, work.model.as_deref()));
            let message = match &fingerprint {
                Some(fingerprint) if gives_up => format!(
                    "crash loop: {losses} workers were lost with this job alone in them; the last time {message} (fingerprint {})",
                    fingerprint.hash()
                ),
                _ => message,
            };
            end.outcome = if gives_up { AttemptOutcome::Failed } else { AttemptOutcome::Lost };
            end.error = Some(AttemptError { code, message, retryable: !gives_up });
            end.suspect = suspect;
            end.alone = alone;
            end.fingerprint = fingerprint;
        }
        Outcome::Cancelled { spent } => {
            end.outcome = AttemptOutcome::Cancelled;
            note(&mut end, spent);
            end.error = Some(AttemptError {
                code: ErrorCode::Cancelled,
                message: "cancelled while it ran".to_owned(),
                retryable: false,
            });
        }
        Outcome::Released { spent } => {
            end.outcome = AttemptOutcome::Released;
            note(&mut end, spent);
        }
        Outcome::Unstartable { message, retry_after } => {
            end.outcome = AttemptOutcome::Released;
            end.delay = retry_after;
            // There is no worker whose stderr could say why.
            end.stderr_tail = Some(message);
            return end;
        }
    }
    end.stderr_tail = (!stderr.is_empty()).then(|| stderr.to_string());
    end
}

/// A result that is too large is none: its job fails for it, and nobody else's write does.
fn bounded(outcome: Outcome, rules: Rules) -> Outcome {
    let (bytes, spent) = match &outcome {
        Outcome::Completed(Payload::Transcript(transcript)) => {
            let spent = Spent { usage: transcript.raw_usage.clone(), cost_usd: transcript.cost_usd };
            (transcript.bytes, spent)
        }
        Outcome::Completed(Payload::Analysis(analysis)) => (analysis.raw.get().len(), Spent::default()),
        _ => return outcome,
    };
    let max = rules.result_max_bytes;
    if bytes <= max {
        return outcome;
    }
    Outcome::Failed(WorkerError {
        code: ErrorCode::InvalidResponse,
        message: format!("the result has {bytes} bytes, and at most {max} are kept"),
        retryable: true,
        retry_after: None,
        http_status: None,
        detail: None,
        spent,
    })
}

fn failed(work: &Work, error: WorkerError, rules: Rules, rng: &mut impl Rng, end: &mut AttemptEnd) {
    let failures = u32::from(work.failures.unsigned_abs()) + 1;
    let within_limit = failures <= u32::from(rules.kind.retry_limit.unsigned_abs());
    let backoff = rules.kind.backoff.delay(failures, rng);
    let asked = error.retry_after.unwrap_or_default();
    let (outcome, delay) = match error.code.consequence() {
        Consequence::Retry if within_limit => (AttemptOutcome::Retried, backoff.max(asked)),
        Consequence::RetryOnce if within_limit && work.failures_retried_once == 0 => {
            (AttemptOutcome::Retried, backoff.max(asked))
        }
        Consequence::Throttle => {
            // Whoever does not say how long gets the first step of the backoff.
            let delay = if asked.is_zero() { rules.kind.backoff.delay(1, rng) } else { asked };
            if work.throttled + delay > rules.kind.throttle_max {
                (AttemptOutcome::Failed, Duration::ZERO)
            } else {
                (AttemptOutcome::Throttled, delay)
            }
        }
        Consequence::Retry | Consequence::RetryOnce | Consequence::Fail | Consequence::Lost => {
            (AttemptOutcome::Failed, Duration::ZERO)
        }
        Consequence::Cancel => (AttemptOutcome::Cancelled, Duration::ZERO),
    };
    end.outcome = outcome;
    end.delay = delay;
    end.holds = error.code.concerns_everybody() && work.model.as_deref().is_some_and(may_hold);
    note(end, error.spent);
    end.error = Some(AttemptError {
        code: error.code,
        message: error.message,
        retryable: !matches!(error.code.consequence(), Consequence::Fail | Consequence::Cancel),
    });
}

fn note(end: &mut AttemptEnd, spent: Spent) {
    end.usage = spent.usage;
    end.cost_usd = spent.cost_usd.map(|amount| amount.to_string());
}

/// An end for a result that the database refuses to store: the job's own failure, in words without database text.
pub fn unstorable(work: &Work, rules: Rules, rng: &mut impl Rng) -> AttemptEnd {
    let error = WorkerError {
        code: ErrorCode::InvalidResponse,
        message: "the result cannot be stored: it holds a NUL character, half of a surrogate pair or a number out of range".to_owned(),
        retryable: true,
        retry_after: None,
        http_status: None,
        detail: None,
        spent: Spent::default(),
    };
    let finished = Finished {
        claim: work.claim,
        outcome: Outcome::Failed(error),
        stderr_tail: "".into(),
        worker_pid: None,
    };
    judge(work, finished, rules, rng)
}

/// An end for an attempt whose task in this node panicked: a loss, since nobody knows what the worker did.
pub fn panicked(work: &Work, rules: Rules, rng: &mut impl Rng) -> AttemptEnd {
    let outcome = Outcome::Lost {
        code: ErrorCode::WorkerCrash,
        message: "the node's task for this attempt ended in a panic".to_owned(),
        alone: true,
        cause: Cause::Node("a panic of the node's task"),
        suspect: true,
    };
    judge(work, Finished { claim: work.claim, outcome, stderr_tail: "".into(), worker_pid: None }, rules, rng)
}
