//! What can go wrong with the database.

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

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

    /// What clients may hear of a database that is not available just now; `None` for every other error.
    #[must_use]
    pub fn public(&self) -> Option<&'static str> {
        let cause = match self {
            Self::Unavailable(cause) => cause,
            Self::Contended(_) => return Some("Others are changing the same things just now"),
            Self::Aborted => return Some("The service is not available just now"),
            Self::Refused(_) | Self::Unknown(_) | Self::Deposed => return None,
        };
        let code = match cause {
            sqlx::Error::PoolTimedOut => return Some("No connection to the database is to be had just now"),
            sqlx::Error::Database(e) => e.code(),
            _ => None,
        };
        Some(match code.as_deref() {
            Some("53100") => "The database's disk is full, so nothing new can be stored",
            Some("53300") => "The database has no connection left just now",
            Some("25006") => "The database is a standby just now, so nothing can be stored",
            Some("55P03") => "Others hold what has to be changed just now",
            Some("57014") => "The database takes too long just now",
            _ => "The database does not answer just now",
        })
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
            // The session has ended with it, or never began: that says nothing against what was asked.
            sqlx::Error::Database(e) if ends_session(e.as_ref()) => return Self::Unavailable(error),
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

fn ends_session(error: &(dyn DatabaseError + 'static)) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|e| matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
