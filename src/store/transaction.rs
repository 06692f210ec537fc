//! Short transactions that a cancelled caller cannot leave half done.

use std::pin::Pin;

use sqlx::PgConnection;

use super::{Error, Result, Store};

/// A future that borrows the transaction's connection.
pub(super) type Body<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// Deadlocks and serialization failures are rerun this often before the caller hears of them.
const RERUNS: u32 = 3;

/// Runs `body` in a transaction of its own task: a caller that is dropped meanwhile (a closed HTTP connection, a
/// timeout) neither interrupts it nor returns a connection to the pool that is still inside a transaction. Contended
/// transactions are rerun.
pub(super) async fn in_transaction<T, F>(store: &Store, body: F) -> Result<T>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut PgConnection) -> Body<'c, T> + Send + Sync + 'static,
{
    let store = store.clone();
    let work = async move {
        let mut reruns = 0;
        loop {
            let mut transaction = store.pool.begin().await?;
            let done = match say_who_acts(&mut transaction, &store).await {
                Ok(()) => body(&mut transaction).await,
                Err(error) => Err(error),
            };
            let result = match done {
                Ok(value) => transaction.commit().await.map(|()| value).map_err(Error::from),
                Err(error) => {
                    if let Err(rollback) = transaction.rollback().await {
                        tracing::debug!(error = %rollback, "rollback failed; the connection is dropped");
                    }
                    Err(error)
                }
            };
            match result {
                Err(Error::Contended(error)) if reruns < RERUNS => {
                    reruns += 1;
                    tracing::debug!(%error, reruns, "transaction is rerun");
                }
                other => return other,
            }
        }
    };
    let span = tracing::Span::current();
    tokio::spawn(tracing::Instrument::instrument(work, span)).await.map_err(|_| Error::Aborted)?
}

/// What the transaction changes is recorded in the name of the person it acts for.
async fn say_who_acts(c: &mut PgConnection, store: &Store) -> Result<()> {
    if let Some(actor) = &store.actor {
        sqlx::query!(
            "select set_config('runlane.actor', $1, true) as actor, set_config('runlane.role', $2, true) as role,
                    set_config('runlane.request_id', $3, true) as request_id",
            actor.subject,
            actor.role.as_str(),
            actor.request_id
        )
        .fetch_one(c)
        .await?;
    }
    Ok(())
}
