//! The one error of the services, said without any transport. It becomes GraphQL or HTTP once, at the edge.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::domain::job::JobValidationError;
use crate::domain::queue::QueueError;
use crate::domain::run::RunStateError;
use crate::domain::spend::SpendHold;
use crate::domain::validation::{ValidationErrors, shorten};

/// What a service answers.
pub type Result<T> = std::result::Result<T, Error>;

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    /// A definition.
    Definition,
    /// A run.
    Run,
    /// A job.
    Job,
    /// A dead letter.
    DeadLetter,
    /// A node.
    Node,
    /// A limit on a provider or a model.
    Limit,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Definition => "definition",
            Self::Run => "run",
            Self::Job => "job",
            Self::DeadLetter => "dead letter",
            Self::Node => "node",
            Self::Limit => "limit",
        })
    }
}

/// Why a service refused or could not. `Display` is for clients and holds nothing internal; what only the log
/// may have is in [`Error::internal_text`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This person may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// There is none, or it is another user's: the answer is the same for both.
    #[error("There is no {what} with the id {}.", shorten(id))]
    NotFound {
        /// The kind of thing.
        what: Entity,
        /// What was asked for.
        id: String,
    },
    /// The input is wrong.
    #[error(transparent)]
    Validation(#[from] ValidationErrors),
    /// A job may not be created or changed so.
    #[error(transparent)]
    JobValidation(#[from] JobValidationError),
    /// The run's status does not allow it.
    #[error(transparent)]
    RunState(#[from] RunStateError),
    /// It contradicts something that was done before.
    #[error("{0}")]
    Conflict(String),
    /// The queue refused.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Nothing may be spent any more.
    #[error("Nothing more may be spent now: {0}. It may again at {at}, or when an admin raises the limit.", at = .0.until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))]
    SpendLimit(Box<SpendHold>),
    /// Too many requests.
    #[error("Too many requests: try again in {} ms.", millis(*.retry_after))]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// Something that is needed is not there just now.
    #[error("{why}: try again in {} ms.", millis(*.retry_after))]
    Unavailable {
        /// What is the matter, for clients.
        why: String,
        /// When to try again.
        retry_after: Duration,
        /// What was not there; for the log only.
        internal: String,
    },
    /// A mistake of the program or its installation.
    #[error("Something went wrong inside the server. Ask the operator, and give the errorId.")]
    Internal {
        /// What; for the log only.
        internal: String,
    },
}

impl Error {
    /// An internal error of `cause` and all that caused it.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut internal = cause.to_string();
        let mut source = cause.source();
        while let Some(cause) = source {
            internal.push_str(": ");
            internal.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Internal { internal }
    }

    /// The stable `extensions.code`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "FORBIDDEN",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::Validation(_) => "VALIDATION_ERROR",
            Self::JobValidation(_) => "JOB_VALIDATION_ERROR",
            Self::RunState(_) => "RUN_STATE_ERROR",
            Self::Conflict(_) => "CONFLICT",
            Self::Queue(_) | Self::SpendLimit(_) => "QUEUE_ERROR",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// What goes beside the code: `field` and `errors`; `currentStatus` and `action`; `retryAfterMs`; and for
    /// the queue `jobs`, `limit` and, of a user, `waiting`, or `reason`, `scope`, `key`, `limitUsd`, `spentUsd` and `until`. The `errorId` of an internal error is the edge's to make and to log.
    #[must_use]
    pub fn extensions(&self) -> Map<String, Value> {
        let mut pairs = Map::new();
        let mut set = |name: &str, value: Value| pairs.insert(name.to_owned(), value);
        match self {
            Self::Validation(errors) => {
                let list = errors
                    .iter()
                    .map(|e| serde_json::json!({"field": e.field, "message": e.message}))
                    .collect();
                set("field", errors.first().field.clone().into());
                set("errors", Value::Array(list));
            }
            Self::RunState(error) => {
                set("currentStatus", error.current.as_str().into());
                set("action", error.action.name().into());
            }
            Self::JobValidation(error) => {
                if let Some(status) = error.status() {
                    set("currentStatus", status.as_str().into());
                }
                set("action", error.action().into());
            }
            Self::Queue(QueueError::TooManyJobs { jobs, limit }) => {
                set("jobs", (*jobs).into());
                set("limit", (*limit).into());
            }
            Self::Queue(QueueError::TooManyWaiting { jobs, waiting, limit }) => {
                set("jobs", (*jobs).into());
                set("waiting", (*waiting).into());
                set("limit", (*limit).into());
            }
            Self::SpendLimit(hold) => {
                set("reason", "SPEND_LIMIT".into());
                set("scope", hold.account.scope.as_str().into());
                set("key", hold.account.key.clone().into());
                set("limitUsd", hold.limit_usd.to_string().into());
                set("spentUsd", hold.spent_usd.to_string().into());
                set("until", hold.until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true).into());
            }
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => {
                set("retryAfterMs", millis(*retry_after).into());
            }
            Self::Forbidden(_) | Self::NotFound { .. } | Self::Conflict(_) | Self::Internal { .. } => {}
        }
        pairs
    }

    /// What the log may have and a client may not.
    #[must_use]
    pub fn internal_text(&self) -> Option<&str> {
        match self {
            Self::Unavailable { internal, .. } | Self::Internal { internal } => Some(internal),
            _ => None,
        }
    }
}

/// Whole milliseconds, rounded up: who waits that long does not come too early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobState, RunAction, RunStatus};
    use serde_json::json;

    fn seen(error: &Error) -> (&'static str, Value) {
        (error.code(), Value::Object(error.extensions()))
    }

    #[test]
    fn codes_and_extensions_are_those_of_the_contract() {
        let retry_after = Duration::from_micros(1_500);
        let cases: Vec<(Error, &str, Value)> = vec![
            (Error::Forbidden("No.".into()), "FORBIDDEN", json!({})),
            (Error::NotFound { what: Entity::Run, id: "x".into() }, "NOT_FOUND", json!({})),
            (
                ValidationErrors::one("input.models", "is empty").into(),
                "VALIDATION_ERROR",
                json!({"field": "input.models", "errors": [{"field": "input.models", "message": "is empty"}]}),
            ),
            (
                RunStatus::Completed.allow(RunAction::Pause).unwrap_err().into(),
                "RUN_STATE_ERROR",
                json!({"currentStatus": "COMPLETED", "action": "pause"}),
            ),
            (
                JobState::Active.allow_retry(1).unwrap_err().into(),
                "JOB_VALIDATION_ERROR",
                json!({"currentStatus": "RUNNING", "action": "retry"}),
            ),
            (Error::Conflict("Other input.".into()), "CONFLICT", json!({})),
            (
                QueueError::TooManyJobs { jobs: 3, limit: 2 }.into(),
                "QUEUE_ERROR",
                json!({"jobs": 3, "limit": 2}),
            ),
            (
                QueueError::TooManyWaiting { jobs: 3, waiting: 4, limit: 5 }.into(),
                "QUEUE_ERROR",
                json!({"jobs": 3, "waiting": 4, "limit": 5}),
            ),
            (Error::RateLimited { retry_after }, "RATE_LIMITED", json!({"retryAfterMs": 2})),
            (
                Error::Unavailable { why: "Not now".into(), retry_after, internal: "pool".into() },
                "UNAVAILABLE",
                json!({"retryAfterMs": 2}),
            ),
            (Error::Internal { internal: "x".into() }, "INTERNAL", json!({})),
        ];
        for (error, code, extensions) in cases {
            assert_eq!(seen(&error), (code, extensions), "{error}");
        }
    }

    #[test]
    fn what_is_internal_reaches_the_log_and_no_client() {
        let cause = std::io::Error::other("password of postgres at /var/lib");
        let errors = [
            Error::internal(&cause),
            Error::Unavailable {
                why: "Not now".into(),
                retry_after: Duration::ZERO,
                internal: cause.to_string(),
            },
        ];
        for error in errors {
            assert!(!error.to_string().contains("postgres"), "{error}");
            assert!(std::error::Error::source(&error).is_none());
            assert!(!Value::Object(error.extensions()).to_string().contains("postgres"));
            assert_eq!(error.internal_text(), Some("password of postgres at /var/lib"));
        }
    }
}
