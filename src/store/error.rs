//! What can go wrong with the database.

use crate::domain::text_enum::UnknownState;

/// The result of a store function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A database error. "Not found" is no error: functions return `Option`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, is starting or stopping, or has no connection or space to give. Worth a retry.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The transaction lost against others (deadlock, serialization failure). Worth a rerun.
    #[error("the database is busy: {0}")]
    Contended(#[source] sqlx::Error),
    /// The database refused the data or the statement.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
    /// The writer led once, and another leader has begun since; nothing was changed.
    #[error("another leader has begun; nothing was changed")]
    Deposed,
    /// A row says what the program cannot understand.
    #[error("the database holds what this version does not know: {0}")]
    Unknown(#[from] UnknownState),
    /// A task of this process ended before its work.
    #[error("a database task was aborted")]
    Aborted,
}

impl Error {
    /// Whether the same call may succeed later without a change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Contended(_) | Self::Aborted)
    }

    /// The name of the violated constraint, if that is what went wrong.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Refused(sqlx::Error::Database(e)) => e.constraint(),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let class = match &error {
            sqlx::Error::Database(e) => e.code().map(|c| c.into_owned()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => return Self::Unavailable(error),
            _ => None,
        };
        match class.as_deref() {
            Some(code) if code.starts_with("40") => Self::Contended(error),
            // Raised by assert_leader().
            Some("RL001") => Self::Deposed,
            // The lock timeout.
            Some("55P03") => Self::Unavailable(error),
            // Connection exceptions, insufficient resources, operator intervention (among it the statement timeout), system errors.
            Some(code) if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                Self::Unavailable(error)
            }
            // A failover made this server a read-only standby.
            Some("25006") => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}
