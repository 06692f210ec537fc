//! Connections: pools with bounded waits, and statements with bounded times.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::{Error, Result};

/// How a pool behaves.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Connections at most.
    pub size: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// PostgreSQL ends a statement after this long.
    pub statement_timeout: Duration,
    /// PostgreSQL ends a wait for a lock after this long.
    pub lock_timeout: Duration,
}

/// A pool for `url`. Connects lazily: an unreachable server shows at the first statement.
///
/// # Errors
/// [`Error::Refused`] when the URL cannot be read.
pub fn connect(url: &SecretString, name: &str, settings: PoolSettings) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(url.expose_secret())
        // The error of a malformed URL may repeat it, and with it the password.
        .map_err(|_| Error::Refused(sqlx::Error::Configuration("the database URL cannot be read".into())))?
        .application_name(name)
        .options([
            ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
            ("lock_timeout", settings.lock_timeout.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", settings.statement_timeout.as_millis().to_string()),
            ("timezone", "UTC".to_owned()),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.size)
        .acquire_timeout(settings.acquire_timeout)
        .connect_lazy_with(options))
}
