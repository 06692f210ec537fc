//! Connections: pools with bounded waits, and statements with bounded times.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::time::Instant;

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

/// The wait between two attempts to reach a server.
const REACH_AGAIN: Duration = Duration::from_millis(250);

/// A pool for `url`. Connects lazily: an unreachable server shows at the first statement.
///
/// # Errors
/// [`Error::Refused`] when the URL cannot be read.
pub fn connect(url: &SecretString, name: &str, settings: PoolSettings) -> Result<PgPool> {
    let options = options(url)?.application_name(name).options([
        ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
        ("lock_timeout", settings.lock_timeout.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", settings.statement_timeout.as_millis().to_string()),
        ("timezone", "UTC".to_owned()),
        // To compile a statement takes longer than any of these runs.
        ("jit", "off".to_owned()),
    ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.size)
        .acquire_timeout(settings.acquire_timeout)
        .connect_lazy_with(options))
}

/// Waits until the server answers, for `patience` at most.
///
/// # Errors
/// What the server refuses at once (a wrong password, a missing database), or why the last attempt failed: a pool would
/// only say that it waited in vain.
pub async fn reach(url: &SecretString, patience: Duration) -> Result<()> {
    let options = options(url)?.application_name("runlane start");
    let deadline = Instant::now() + patience;
    let mut last = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    loop {
        match tokio::time::timeout_at(deadline, PgConnection::connect_with(&options)).await {
            Ok(Ok(connection)) => return Ok(connection.close().await?),
            Ok(Err(error)) => match Error::from(error) {
                Error::Unavailable(error) if Instant::now() + REACH_AGAIN < deadline => {
                    tracing::info!(%error, "waiting for the database");
                    last = error;
                    tokio::time::sleep(REACH_AGAIN).await;
                }
                error => return Err(error),
            },
            Err(_) => return Err(Error::Unavailable(last)),
        }
    }
}

/// What `url` says.
pub(super) fn options(url: &SecretString) -> Result<PgConnectOptions> {
    PgConnectOptions::from_str(url.expose_secret())
        // The error of a malformed URL may repeat it, and with it the password.
        .map_err(|_| Error::Refused(sqlx::Error::Configuration("the database URL cannot be read".into())))
}
