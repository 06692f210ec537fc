//! The pool as statements use it: no wait without an end, and no connection used again whose state is not known.
//!
//! PostgreSQL ends statements that take too long, but a network that has gone silent tells nobody. So every answer is
//! waited for with a limit of our own, and what was not heard to its end (an error of the connection, a limit reached, a
//! caller that left) is closed, never put back: the pool would wait for its answer without a limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};
use tokio::time::timeout;

/// How long a healthy connection may take to show that it is one when it is put back.
const CHECK_MAX: Duration = Duration::from_secs(5);
/// A kept connection that was idle for longer goes back to the pool, which asks whether anybody is still there.
const KEPT_IDLE_MAX: Duration = Duration::from_secs(10);

/// How long the database is waited for, and how often it is asked again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest wait for the answer to a statement; then its connection is taken for broken.
    pub answer: Duration,
    /// How often what failed for want of a connection, and changed nothing, is tried again.
    pub retries: u32,
    /// The wait before each such try.
    pub retry_delay: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(40), retries: 0, retry_delay: Duration::from_millis(100) }
    }
}

/// Where statements are run. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    pub(super) patience: Patience,
    /// Where the connection of one statement waits for the next; none: in the pool.
    pub(super) kept: Option<Kept>,
}

/// A connection that is used again and again without going through the pool, which would ask the server for a sign of
/// life before and after each use, and hand out another one, where what is run next may not have been planned yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Option<Idle>>>);

#[derive(Debug)]
struct Idle {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Kept {
    /// The connection, unless it is in use or was idle for long.
    fn take(&self) -> Option<PoolConnection<Postgres>> {
        let idle = self.lock().take()?;
        (idle.since.elapsed() < KEPT_IDLE_MAX).then_some(idle.connection)
    }

    /// Keeps the connection; of two that were in use at once, the first to come back goes to the pool.
    fn put(&self, connection: PoolConnection<Postgres>) {
        let older = self.lock().replace(Idle { connection, since: Instant::now() });
        // Not under the lock: its drop gives it back.
        drop(older);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// A connection; tried again as [`Patience`] says.
    pub(super) async fn acquire(&self) -> sqlx::Result<Held> {
        let held =
            |connection| Held { connection: Some(connection), is_sound: false, kept: self.kept.clone() };
        if let Some(connection) = self.kept.as_ref().and_then(Kept::take) {
            return Ok(held(connection));
        }
        let mut tries = 0;
        loop {
            match self.pool.acquire().await {
                Ok(connection) => return Ok(held(connection)),
                Err(error) if may_pass(&error) && tries < self.patience.retries => {
                    tries += 1;
                    tracing::debug!(%error, tries, "no connection; trying again");
                    tokio::time::sleep(self.patience.retry_delay).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection in use. Dropped, it is kept or goes back to the pool if it is known to be sound, and is closed if not.
pub(super) struct Held {
    connection: Option<PoolConnection<Postgres>>,
    is_sound: bool,
    kept: Option<Kept>,
}

impl Held {
    /// To run statements on.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only the drop takes it")
    }

    /// What was done on it is known to the end: it is fit for others.
    pub(super) fn keep(&mut self) {
        self.is_sound = true;
    }

    /// Notes whether what was last done on the connection leaves it fit for others.
    fn heard<T>(&mut self, answer: sqlx::Result<T>) -> sqlx::Result<T> {
        self.is_sound = answer.as_ref().map_or_else(|e| !is_broken(e) && !is_elsewhere(e), |_| true);
        answer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.is_sound
            && let Some(kept) = &self.kept
        {
            kept.put(connection);
        } else if self.is_sound {
            // What its own drop does, but with a limit.
            let returned = connection.return_to_pool();
            tokio::spawn(async move {
                if timeout(CHECK_MAX, returned).await.is_err() {
                    tracing::debug!("a connection did not answer when it was put back; it is closed");
                }
            });
        } else {
            connection.close_on_drop();
        }
    }
}

/// Whether the connection is gone, so that nobody knows what became of the last statement.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        // The server ends the session: it shuts down, crashed, or was told to.
        sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("57P") || c.starts_with("08")),
        _ => false,
    }
}

/// Whether there may be a connection a little later.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        // Too many connections.
        sqlx::Error::Database(e) if e.code().as_deref() == Some("53300") => true,
        error => is_broken(error),
    }
}

/// Whether the server has become a standby: a new connection may lead to the one that took over.
pub(super) fn is_elsewhere(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some("25006"))
}

/// The error for an answer that did not come.
pub(super) fn unanswered(limit: Duration) -> sqlx::Error {
    let message = format!("the database did not answer within {} ms", limit.as_millis());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
}

impl<'p> Executor<'p> for &'_ Connections {
    type Database = Postgres;

    /// Rows are gathered, so that the connection is free before they are looked at.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let this = self.clone();
        let rows = async move {
            let mut held = this.acquire().await?;
            let limit = this.patience.answer;
            let rows: BoxFuture<'_, sqlx::Result<Vec<_>>> =
                Box::pin(held.connection().fetch_many(query).try_collect());
            let answer = timeout(limit, rows).await.unwrap_or_else(|_| Err(unanswered(limit)));
            held.heard(answer)
        };
        stream::once(rows).map_ok(|rows| stream::iter(rows).map(Ok)).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let this = self.clone();
        Box::pin(async move {
            let mut held = this.acquire().await?;
            let limit = this.patience.answer;
            let answer = timeout(limit, held.connection().fetch_optional(query))
                .await
                .unwrap_or_else(|_| Err(unanswered(limit)));
            held.heard(answer)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        let this = self.clone();
        Box::pin(async move {
            let mut held = this.acquire().await?;
            let limit = this.patience.answer;
            let answer = timeout(limit, held.connection().prepare_with(sql, parameters))
                .await
                .unwrap_or_else(|_| Err(unanswered(limit)));
            held.heard(answer)
        })
    }
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'p: 'e,
    {
        let pool = self.pool.clone();
        Box::pin(async move { pool.acquire().await?.describe(sql).await })
    }
}
