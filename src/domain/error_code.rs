//! What went wrong with an attempt, and what follows from it.

use std::fmt;
use std::str::FromStr;

/// The error codes of the worker protocol, and those that the node sets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The connection to the provider failed.
    Network,
    /// The attempt's deadline passed.
    Timeout,
    /// The provider answered with a server error.
    ServerError,
    /// The provider asked to slow down.
    RateLimit,
    /// The account's quota is used up.
    QuotaExhausted,
    /// The provider refused the credentials.
    Auth,
    /// The provider refused the request as malformed.
    Validation,
    /// The model does not exist.
    NotFound,
    /// The conversation does not fit the model's context.
    ContextLength,
    /// The provider's content filter refused.
    ContentFilter,
    /// The answer was empty or could not be read.
    InvalidResponse,
    /// Anything that the worker could not classify.
    Unknown,
    /// The worker process died (set by the node).
    WorkerCrash,
    /// The worker ended without a terminal event, or wrote what is none (set by the node).
    MalformedOutput,
    /// The worker broke the protocol (set by the node).
    Protocol,
    /// The job was cancelled while it ran (set by the node).
    Cancelled,
    /// The node that held the job stopped renewing its lease (set by the node that found out).
    NodeLost,
}

/// What a failed attempt means for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Counts as a failure; run again until the kind's retry limit is used up.
    Retry,
    /// Counts as a failure; run again once.
    RetryOnce,
    /// The job fails at once.
    Fail,
    /// Counts nothing; waits at least as long as the provider asked.
    Throttle,
    /// Counts a loss, not a failure; run again alone.
    Lost,
    /// The job is cancelled.
    Cancel,
}

impl ErrorCode {
    /// Every code, in the order of the contract's table.
    pub const ALL: [Self; 17] = [
        Self::Network,
        Self::Timeout,
        Self::ServerError,
        Self::RateLimit,
        Self::QuotaExhausted,
        Self::Auth,
        Self::Validation,
        Self::NotFound,
        Self::ContextLength,
        Self::ContentFilter,
        Self::InvalidResponse,
        Self::Unknown,
        Self::WorkerCrash,
        Self::MalformedOutput,
        Self::Protocol,
        Self::Cancelled,
        Self::NodeLost,
    ];

    /// The code as workers and clients write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::ServerError => "server_error",
            Self::RateLimit => "rate_limit",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Auth => "auth",
            Self::Validation => "validation",
            Self::NotFound => "not_found",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::InvalidResponse => "invalid_response",
            Self::Unknown => "unknown",
            Self::WorkerCrash => "worker_crash",
            Self::MalformedOutput => "malformed_output",
            Self::Protocol => "protocol",
            Self::Cancelled => "cancelled",
            Self::NodeLost => "node_lost",
        }
    }

    /// What follows from an attempt that ended with this code.
    #[must_use]
    pub const fn consequence(self) -> Consequence {
        match self {
            Self::Network | Self::Timeout | Self::ServerError => Consequence::Retry,
            Self::InvalidResponse | Self::Unknown => Consequence::RetryOnce,
            Self::RateLimit => Consequence::Throttle,
            Self::QuotaExhausted
            | Self::Auth
            | Self::Validation
            | Self::NotFound
            | Self::ContextLength
            | Self::ContentFilter => Consequence::Fail,
            Self::WorkerCrash | Self::MalformedOutput | Self::Protocol | Self::NodeLost => Consequence::Lost,
            Self::Cancelled => Consequence::Cancel,
        }
    }

    /// Whether it bears on everybody who calls the same model (`rate_limit`) or provider (the others).
    #[must_use]
    pub const fn concerns_everybody(self) -> bool {
        matches!(self, Self::RateLimit | Self::QuotaExhausted | Self::Auth)
    }

    /// Whether a worker may report this code itself; the others are the node's own findings.
    #[must_use]
    pub const fn worker_may_report(self) -> bool {
        !matches!(
            self,
            Self::WorkerCrash | Self::MalformedOutput | Self::Protocol | Self::Cancelled | Self::NodeLost
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the known codes.
#[derive(Debug, thiserror::Error)]
#[error("unknown error code {0:?}")]
pub struct UnknownErrorCode(pub String);

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.as_str() == text).ok_or_else(|| UnknownErrorCode(text.to_owned()))
    }
}
