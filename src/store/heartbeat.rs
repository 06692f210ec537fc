//! A node's sign of life, over a connection that nothing else uses: neither a busy pool nor a slow statement costs a
//! lease.

use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgExecutor};
use uuid::Uuid;

use super::nodes::millis;
use super::{Error, Result, Store};
use crate::domain::JobKind;

/// What a lease's renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease holds for another term.
    Renewed {
        /// Whether the node claims nothing more.
        is_draining: bool,
        /// How long the lease of another node that ends first still lasts, if there is one; zero when it is over.
        next_end: Option<Duration>,
    },
    /// Another node found the lease run out and gave the jobs back to the queue.
    Lost,
}

/// What a node says of itself whenever it renews its lease.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Jobs of each kind that it can run.
    pub slots: Vec<(JobKind, u32)>,
    /// Jobs of each kind that it runs.
    pub active: Vec<(JobKind, u32)>,
    /// Renewals that failed since it registered.
    pub failed_renewals: u64,
    /// Results that came too late since it registered.
    pub late_results: u64,
    /// Half of the lease went by before this renewal: how that came, for the audit.
    pub endangered: Option<Value>,
}

/// A lease that was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum Missed {
    /// Nothing answers where the database should be, or it says that it is starting or stopping: then nobody can renew
    /// a lease, and none is judged.
    #[error("the database is down: {0}")]
    Down(#[source] Error),
    /// Everything else: others may be better off.
    #[error(transparent)]
    Failed(Error),
}

/// The connection of one node's renewals.
#[derive(Debug)]
pub struct Heartbeat {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Store {
    /// A heartbeat whose renewals PostgreSQL ends after `longest`: one that was given up here does not go on there.
    #[must_use]
    pub fn heartbeat(&self, longest: Duration) -> Heartbeat {
        let bound = longest.as_millis().max(1).to_string();
        let options = (*self.pool().connect_options()).clone();
        let options = options
            .application_name("runlane heartbeat")
            .options([("statement_timeout", bound.as_str()), ("lock_timeout", bound.as_str())]);
        Heartbeat { options, connection: None }
    }

    /// Renews a node's lease, also one that has run out if nobody has noticed yet.
    ///
    /// # Errors
    /// The database's.
    pub async fn renew_lease(&self, node: Uuid, lease: Duration) -> Result<Beat> {
        renew(&self.pool, node, lease, &Pulse::default()).await
    }
}

impl Heartbeat {
    /// Renews the lease once. A call that is given up closes the connection, and the next makes another.
    ///
    /// # Errors
    /// [`Missed`].
    pub async fn beat(&mut self, node: Uuid, lease: Duration, pulse: &Pulse) -> Result<Beat, Missed> {
        // Taken out, so that it goes with this call unless the call succeeds.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await.map_err(|error| {
                if is_down(&error) { Missed::Down(error.into()) } else { Missed::Failed(error.into()) }
            })?,
        };
        let beat = renew(&mut connection, node, lease, pulse).await.map_err(Missed::Failed)?;
        self.connection = Some(connection);
        Ok(beat)
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the heartbeat's connection did not close in good order");
        }
    }
}

/// What an error of a new connection says: connections that exist also break for reasons of their own.
fn is_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
        }
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

/// One statement; none of what it sets is in an index, so it stays within the row's page. A try that was given up may
/// reach the server after a later one, so counters only grow.
async fn renew(db: impl PgExecutor<'_>, node: Uuid, lease: Duration, pulse: &Pulse) -> Result<Beat> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let renewed = sqlx::query!(
        r#"update node
              set lease_until = clock_timestamp() + $2 * interval '1 millisecond', renewed_at = clock_timestamp(),
                  slots = $3, active = $4,
                  failed_renewals = greatest(failed_renewals, $5), late_results = greatest(late_results, $6)
            where id = $1
           returning is_draining,
                     (select extract(epoch from min(n.lease_until) - clock_timestamp())::float8
                        from node n where n.id <> $1) as next_end,
                     -- Of several tries that reach the server in the end, one is recorded.
                     case when $7::jsonb is not null
                           and not exists (select from audit a
                                            where a.subject_kind = 'node' and a.subject_id = node.id::text
                                              and a.action = 'node.lease_endangered' and a.after = $7)
                          then record_act('node.lease_endangered', 'node', id::text, null, null, $7)::text end as recorded"#,
        node,
        millis(lease) as f64,
        by_kind(&pulse.slots),
        by_kind(&pulse.active),
        count(pulse.failed_renewals),
        count(pulse.late_results),
        pulse.endangered
    )
    .fetch_optional(db)
    .await?;
    Ok(renewed.map_or(Beat::Lost, |row| Beat::Renewed {
        is_draining: row.is_draining,
        next_end: row.next_end.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    }))
}

fn by_kind(counts: &[(JobKind, u32)]) -> Value {
    Value::Object(
        counts.iter().map(|(kind, n)| (kind.as_str().to_owned(), Value::from(*n))).collect::<Map<_, _>>(),
    )
}
