//! The pool as statements use it: no wait without an end, and no connection used again whose state is not known.
//!
//! PostgreSQL ends statements that take too long, but a network that has gone silent tells nobody. So every answer is
//! waited for with a limit of our own, and what was not heard to its end (an error of the connection, a limit reached, a
//! caller that left) is closed, never put back: the pool would wait for its answer without a limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};
use tokio::time::timeout;

use super::shelf::{Idle, Shelf, Taken};

/// How long a healthy connection may take to show that it is one when it is put back.
const CHECK_MAX: Duration = Duration::from_secs(5);

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
    /// Where the connections of one statement wait for the next; none: in the pool.
    pub(super) kept: Option<Kept>,
    /// Statements outside of transactions only read: one whose kept connection turns out to be gone is run again.
    pub(super) reads_again: bool,
}

/// A statement and what it is run with.
type Statement = (SqlStr, Option<PgArguments>);

/// Connections that are used again and again without going through the pool, which would ask the server for a sign of
/// life before and after each use: three round trips for a statement. The last to come back is the first to go out, so what
/// one request runs after another finds its plans.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Shelf<PoolConnection<Postgres>>>>);

impl Kept {
    /// From now on keeps nothing.
    pub(super) fn close(&self) {
        let idle = self.lock().close();
        idle.into_iter().for_each(give_back);
    }

    /// How many connections are idle here.
    pub(super) fn idle(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Shelf<PoolConnection<Postgres>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody asks the pool for a connection.
struct Asking<'k>(&'k Kept);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().answered();
    }
}

impl Connections {
    /// A connection; tried again as [`Patience`] says.
    pub(super) async fn acquire(&self) -> sqlx::Result<Held> {
        let held = |connection, fetched, was_kept| Held {
            connection: Some(connection),
            fetched,
            was_kept,
            is_sound: false,
            kept: self.kept.clone(),
        };
        let _asking = match &self.kept {
            Some(kept) => {
                let Taken { found, stale } = kept.lock().take(Instant::now());
                stale.into_iter().for_each(give_back);
                if let Some(Idle { connection, fetched, .. }) = found {
                    return Ok(held(connection, fetched, true));
                }
                Some(Asking(kept))
            }
            None => None,
        };
        let mut tries = 0;
        loop {
            match self.pool.acquire().await {
                Ok(connection) => return Ok(held(connection, Instant::now(), false)),
                Err(error) if may_pass(&error) && tries < self.patience.retries => {
                    tries += 1;
                    tracing::debug!(%error, tries, "no connection; trying again");
                    tokio::time::sleep(self.patience.retry_delay).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer to a statement. Nobody has asked a kept connection whether it is still there, so what only reads is run again
    /// when it is not.
    async fn answer<T>(
        &self,
        statement: Statement,
        run: impl for<'c> Fn(&'c mut PgConnection, Statement) -> BoxFuture<'c, sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let mut held = self.acquire().await?;
        let again = (self.reads_again && held.was_kept).then(|| statement.clone());
        let limit = self.patience.answer;
        match timeout(limit, run(held.connection(), statement)).await {
            Err(_) => Err(unanswered(limit)),
            Ok(answer) => match (held.heard(answer), again) {
                (Err(error), Some(statement)) if is_broken(&error) => {
                    tracing::debug!(%error, "a connection was gone; its statement is run again");
                    drop(held);
                    let mut held = self.acquire().await?;
                    let answer = timeout(limit, run(held.connection(), statement)).await;
                    held.heard(answer.unwrap_or_else(|_| Err(unanswered(limit))))
                }
                (answer, _) => answer,
            },
        }
    }
}

/// A connection in use. Dropped, it is kept or goes back to the pool if it is known to be sound, and is closed if not.
pub(super) struct Held {
    connection: Option<PoolConnection<Postgres>>,
    fetched: Instant,
    /// It has not come from the pool just now.
    was_kept: bool,
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
        if !self.is_sound {
            connection.close_on_drop();
            // What broke this one may have broken the others.
            if let Some(kept) = &self.kept {
                let others = kept.lock().clear();
                others.into_iter().for_each(give_back);
            }
            return;
        }
        let for_pool = match &self.kept {
            Some(kept) => kept.lock().put(Idle { connection, fetched: self.fetched, used: Instant::now() }),
            None => Some(connection),
        };
        for_pool.into_iter().for_each(give_back);
    }
}

/// What the connection's own drop does, but with a limit.
fn give_back(mut connection: PoolConnection<Postgres>) {
    let returned = connection.return_to_pool();
    tokio::spawn(async move {
        if timeout(CHECK_MAX, returned).await.is_err() {
            tracing::debug!("a connection did not answer when it was put back; it is closed");
        }
    });
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

/// What is left of a query without its lifetime. None of ours is prepared beforehand, or not to be kept prepared.
fn statement<'q>(mut query: impl Execute<'q, Postgres>) -> sqlx::Result<Statement> {
    let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
    Ok((query.sql(), arguments))
}

impl<'p> Executor<'p> for &'_ Connections {
    type Database = Postgres;

    /// Rows are gathered, so that the connection is free before they are looked at.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (this, statement) = (self.clone(), statement(query));
        let rows = async move {
            this.answer(statement?, |c, s| c.fetch_many(s).try_collect::<Vec<_>>().boxed()).await
        };
        stream::once(rows).map_ok(|rows| stream::iter(rows).map(Ok)).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (this, statement) = (self.clone(), statement(query));
        Box::pin(async move { this.answer(statement?, |c, s| c.fetch_optional(s)).await })
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
