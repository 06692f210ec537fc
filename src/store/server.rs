//! The server itself: what it promises, and what operators should know of it.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::migrate::known_migrations;
use super::{Result, Store};

/// Whether what the server confirms survives a crash of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// The setting of that name.
    pub fsync: String,
    /// The setting of that name.
    pub full_page_writes: String,
    /// The setting of that name, as Runlane's sessions have it.
    pub synchronous_commit: String,
}

impl Durability {
    /// The settings by which confirmed work can be lost, as `name = value`.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        [
            ("fsync", &self.fsync),
            ("full_page_writes", &self.full_page_writes),
            ("synchronous_commit", &self.synchronous_commit),
        ]
        .into_iter()
        .filter(|(_, value)| *value == "off")
        .map(|(name, value)| format!("{name} = {value}"))
        .collect()
    }
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// For people.
    pub version: String,
    /// Such as 150007 for 15.7.
    pub version_num: i32,
    /// Whether confirmed work survives.
    pub durability: Durability,
    /// It replays another server's changes and takes none itself.
    pub is_standby: bool,
    /// Standbys that a commit waits for; `None` when this user may not see them.
    pub synchronous_standbys: Option<i64>,
    /// Standbys of any kind; `None` likewise.
    pub standbys: Option<i64>,
    /// Connections that ordinary users can have.
    pub connections_max: i32,
    /// Connections that there are, this one included.
    pub connections: i64,
    /// Its clock.
    pub now: DateTime<Utc>,
    /// The size of the database in bytes.
    pub size_bytes: i64,
    /// Transactions that have been open for more than five minutes: they keep old rows alive.
    pub old_transactions: i64,
}

/// How the database's schema compares with this program's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// Migrations that this program would apply.
    pub pending: usize,
    /// Migrations that it does not know: a newer program has been here.
    pub unknown: usize,
    /// Migrations that were applied with another text, or not to their end.
    pub changed: Vec<i64>,
}

impl SchemaState {
    /// What keeps this program from using the schema, with the way out; `None` when it is this version's.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let Self { pending, unknown, changed } = self;
        if !changed.is_empty() {
            return Some(format!(
                "migrations {changed:?} were applied with another text, or not to their end: restore a backup, or use the program that applied them"
            ));
        }
        if *unknown > 0 {
            return Some(format!("{unknown} migrations of a newer program are applied: use that one"));
        }
        (*pending > 0).then(|| format!("{pending} migrations are to be applied: run `runlane migrate`"))
    }
}

/// What in the queue needs somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenProblems {
    /// Who paused the whole queue.
    pub paused_by: Option<String>,
    /// Nodes whose lease holds, and which execute.
    pub nodes: i64,
    /// Nodes whose lease has run out and whose jobs nobody has given back.
    pub dead_nodes: i64,
    /// Jobs that wait in lanes that may be claimed from.
    pub waiting: i64,
    /// Dead letters that nobody has resolved.
    pub dead_letters: i64,
}

impl Store {
    /// Whether confirmed work survives.
    ///
    /// # Errors
    /// The database's.
    pub async fn durability(&self) -> Result<Durability> {
        Ok(sqlx::query_as!(
            Durability,
            r#"select current_setting('fsync') as "fsync!", current_setting('full_page_writes') as "full_page_writes!",
                      current_setting('synchronous_commit') as "synchronous_commit!""#
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// The database's.
    pub async fn server_facts(&self) -> Result<ServerFacts> {
        let durability = self.durability().await?;
        let row = sqlx::query!(
            r#"select current_setting('server_version') as "version!",
                      current_setting('server_version_num')::int as "version_num!",
                      pg_is_in_recovery() as "is_standby!",
                      pg_has_role('pg_read_all_stats', 'member') as "sees_all!",
                      (select count(*) from pg_stat_replication
                        where sync_state in ('sync', 'quorum')) as "synchronous_standbys!",
                      (select count(*) from pg_stat_replication) as "standbys!",
                      current_setting('max_connections')::int
                          - current_setting('superuser_reserved_connections')::int as "connections_max!",
                      (select count(*) from pg_stat_activity
                        where backend_type = 'client backend') as "connections!",
                      clock_timestamp() as "now!",
                      pg_database_size(current_database()) as "size_bytes!",
                      (select count(*) from pg_stat_activity
                        where xact_start < clock_timestamp() - interval '5 minutes'
                          and backend_type = 'client backend') as "old_transactions!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(ServerFacts {
            version: row.version,
            version_num: row.version_num,
            durability,
            is_standby: row.is_standby,
            synchronous_standbys: row.sees_all.then_some(row.synchronous_standbys),
            standbys: row.sees_all.then_some(row.standbys),
            connections_max: row.connections_max,
            connections: row.connections,
            now: row.now,
            size_bytes: row.size_bytes,
            old_transactions: row.old_transactions,
        })
    }

    /// How the schema compares with this program's.
    ///
    /// # Errors
    /// The database's.
    pub async fn schema_state(&self) -> Result<SchemaState> {
        let known = known_migrations();
        let applied = applied_migrations(self.pool()).await?;
        let mut state = SchemaState::default();
        for (version, checksum, success) in &applied {
            match known.iter().find(|k| k.0 == *version) {
                None => state.unknown += 1,
                Some(k) if k.1 != *checksum || !success => state.changed.push(*version),
                Some(_) => {}
            }
        }
        state.pending = known.iter().filter(|k| applied.iter().all(|a| a.0 != k.0)).count();
        Ok(state)
    }

    /// What in the queue needs somebody.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_problems(&self) -> Result<OpenProblems> {
        Ok(sqlx::query_as!(
            OpenProblems,
            r#"select (select q.paused_by from queue_state q) as paused_by,
                      (select count(*) from node n where n.executes and n.lease_until > clock_timestamp()) as "nodes!",
                      (select count(*) from node n where n.lease_until < clock_timestamp()) as "dead_nodes!",
                      (select coalesce(sum(l.pending), 0)::bigint from lane l
                        where l.is_live and l.is_open and not l.is_paused) as "waiting!",
                      (select count(*) from dead_letter d where d.status = 'pending') as "dead_letters!""#
        )
        .fetch_one(&self.pool)
        .await?)
    }
}

/// Version, checksum and success of each; none in a database without the table.
async fn applied_migrations(pool: &PgPool) -> Result<Vec<(i64, Vec<u8>, bool)>> {
    // The migrator's own table is none of the schema's, so these are not checked when they are compiled.
    let exists: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(pool).await?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as("select version, checksum, success from _sqlx_migrations order by version")
        .fetch_all(pool)
        .await?)
}
