//! What people read: the statements behind it and the GraphQL surface over them, on a real PostgreSQL.

mod catalogue;
mod explain;
mod graphql;
mod hot;
mod loading;
mod ruled;

use secrecy::SecretString;
use sqlx::postgres::PgPool;
use std::time::Duration;

use runlane::store::{self, PoolSettings};

use crate::support::app::fresh_database;

/// A migrated database of its own.
pub(crate) struct TestDatabase {
    pool: PgPool,
}

impl TestDatabase {
    /// Makes one; `connections` is the size of its pool.
    pub(crate) async fn create(connections: u32) -> Self {
        let url = SecretString::from(fresh_database().await);
        let settings = PoolSettings {
            size: connections,
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(120),
            lock_timeout: Duration::from_secs(30),
        };
        Self { pool: store::connect(&url, "reads", settings).unwrap() }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}
