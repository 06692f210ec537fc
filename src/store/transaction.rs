//! Short transactions that a cancelled caller cannot leave half done, and whose outcome is known also when the answer to
//! COMMIT is lost.

use std::pin::Pin;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, timeout};

use super::connections::{is_broken, is_elsewhere, unanswered};
use super::{Error, Result, Store};
use crate::domain::Requester;

/// A future that borrows the transaction's connection.
pub(super) type Body<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// Deadlocks and serialization failures are rerun this often before the caller hears of them.
pub(super) const RERUNS: u32 = 3;
/// The wait before the fate of a transaction is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Runs `body` in a transaction of its own task: a caller that is dropped meanwhile (a closed HTTP connection, a
/// timeout) neither interrupts it nor returns a connection to the pool that is still inside a transaction. Contended
/// transactions are rerun.
///
/// A transaction in a person's name has a receipt, its number. When its connection breaks, the receipt tells whether it
/// has committed; if it has not, it is rerun, as often as the store's patience says. The system's own transactions have
/// none: each of them does nothing the second time, and is asked for again anyway.
pub(super) async fn in_transaction<T, F>(store: &Store, body: F) -> Result<T>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut PgConnection) -> Body<'c, T> + Send + Sync + 'static,
{
    let store = store.clone();
    let work = async move {
        let (mut reruns, mut retries) = (0, 0);
        loop {
            match once(&store, &body).await {
                Err(Failed { error: Error::Contended(error), .. }) if reruns < RERUNS => {
                    reruns += 1;
                    tracing::debug!(%error, reruns, "transaction is rerun");
                }
                Err(Failed { error, may_rerun: true }) if retries < store.pool.patience.retries => {
                    retries += 1;
                    tracing::warn!(%error, retries, "a transaction did not commit; it is rerun");
                    tokio::time::sleep(store.pool.patience.retry_delay).await;
                }
                other => return other.map_err(|failed| failed.error),
            }
        }
    };
    let span = tracing::Span::current();
    tokio::spawn(tracing::Instrument::instrument(work, span)).await.map_err(|_| Error::Aborted)?
}

/// A transaction that has changed nothing, or whose fate cannot be learned.
struct Failed {
    error: Error,
    /// It changed nothing, because its connection broke.
    may_rerun: bool,
}

/// How far a transaction came.
enum Step<T> {
    Committed(T),
    /// Refused or rolled back, and heard so.
    Undone(Error),
    /// The connection broke; with the body's value, if it was on its way to commit.
    Lost(sqlx::Error, Option<T>),
}

impl<T> Step<T> {
    fn failed(error: Error, value: Option<T>) -> Self {
        match error {
            Error::Unavailable(cause) if is_broken(&cause) => Self::Lost(cause, value),
            error => Self::Undone(error),
        }
    }
}

async fn once<T, F>(store: &Store, body: &F) -> Result<T, Failed>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Body<'c, T> + Send + Sync + 'static,
{
    let kept = |error: Error| Failed { error, may_rerun: false };
    let mut receipt = None;
    let mut held = store.pool.acquire().await.map_err(|e| kept(e.into()))?;
    let (cause, value) = match attempt(held.connection(), store, body, &mut receipt).await {
        Step::Committed(value) => {
            held.keep();
            return Ok(value);
        }
        Step::Undone(error) => {
            if !matches!(&error, Error::Unavailable(cause) if is_elsewhere(cause)) {
                held.keep();
            }
            return Err(kept(error));
        }
        Step::Lost(cause, value) => (cause, value),
    };
    drop(held);
    let Some(number) = &receipt else {
        // A person's transaction that has no receipt yet has not been told to commit.
        return Err(Failed { error: Error::Unavailable(cause), may_rerun: store.actor.is_some() });
    };
    match (fate(store, number).await, value) {
        (Ok(Fate::Committed), Some(value)) => Ok(value),
        (Ok(Fate::Undone), _) => Err(Failed { error: Error::Unavailable(cause), may_rerun: true }),
        // Nothing commits by itself before its COMMIT is sent.
        (Ok(Fate::Committed), None) => Err(kept(Error::Aborted)),
        (Err(error), _) => {
            tracing::error!(%error, %cause, "the answer to a COMMIT was lost, and it cannot be learned what became of it");
            Err(kept(Error::Unavailable(cause)))
        }
    }
}

/// Runs the body and commits. A person's transaction leaves its number in `receipt`.
async fn attempt<T, F>(
    connection: &mut PgConnection,
    store: &Store,
    body: &F,
    receipt: &mut Option<String>,
) -> Step<T>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Body<'c, T> + Send + Sync + 'static,
{
    let limit = store.pool.patience.answer;
    let begun = async {
        let mut transaction = connection.begin().await?;
        let acted = async {
            if let Some(actor) = &store.actor {
                *receipt = Some(say_who_acts(&mut transaction, actor).await?);
            }
            body(&mut transaction).await
        };
        match acted.await {
            Ok(value) => Ok((transaction, value)),
            Err(error) => {
                if let Err(rollback) = transaction.rollback().await {
                    tracing::debug!(error = %rollback, "rollback failed; the connection is dropped");
                }
                Err(error)
            }
        }
    };
    // Several statements, each of which the server ends in time.
    let (transaction, value) = match timeout(limit * 2, begun).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return Step::failed(error, None),
        Err(_) => return Step::Lost(unanswered(limit * 2), None),
    };
    match timeout(limit, transaction.commit()).await {
        Ok(Ok(())) => Step::Committed(value),
        Ok(Err(error)) => Step::failed(error.into(), Some(value)),
        Err(_) => Step::Lost(unanswered(limit), Some(value)),
    }
}

/// What became of a transaction.
enum Fate {
    Committed,
    Undone,
}

/// Asks what became of the transaction with this number, for as long as an answer is waited for. A session that is still
/// in it is ended: its client is gone, and the locks that it holds hold up everybody.
async fn fate(store: &Store, number: &str) -> Result<Fate> {
    let deadline = Instant::now() + store.pool.patience.answer;
    loop {
        let asked = sqlx::query!(
            "select pg_xact_status($1::text::xid8) as status,
                    (select count(pg_terminate_backend(a.pid)) from pg_stat_activity a
                      where a.backend_xid = $1::text::xid8::xid) as ended",
            number
        )
        .fetch_one(&store.pool)
        .await
        .map_err(Error::from);
        let error = match asked {
            Ok(row) => match row.status.as_deref() {
                Some("committed") => return Ok(Fate::Committed),
                Some("aborted") => return Ok(Fate::Undone),
                _ => Error::Unavailable(unanswered(store.pool.patience.answer)),
            },
            // In the future: the server that took over has never heard of it.
            Err(Error::Refused(sqlx::Error::Database(e))) if e.code().as_deref() == Some("22023") => {
                return Ok(Fate::Undone);
            }
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What the transaction changes is recorded in the name of the person it acts for. Returns its number.
async fn say_who_acts(c: &mut PgConnection, actor: &Requester) -> Result<String> {
    let row = sqlx::query!(
        r#"select set_config('runlane.actor', $1, true) as actor, set_config('runlane.role', $2, true) as role,
                  set_config('runlane.request_id', $3, true) as request_id,
                  pg_current_xact_id()::text as "number!""#,
        actor.subject,
        actor.role.as_str(),
        actor.request_id
    )
    .fetch_one(c)
    .await?;
    Ok(row.number)
}
