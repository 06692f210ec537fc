//! What people read: the statements behind it and the GraphQL surface over them, on a real PostgreSQL.

mod explain;
mod graphql;
mod loading;

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::str::FromStr;
use std::time::Duration;

use runlane::store::{self, PoolSettings};

/// A migrated database of its own, dropped at the end of the test that made it.
pub(crate) struct TestDatabase {
    name: String,
    server: String,
    pool: PgPool,
}

impl TestDatabase {
    /// Makes one on the server that `RUNLANE_TEST_DATABASE_SERVER` names. `connections` is the size of its pool.
    pub(crate) async fn create(connections: u32) -> Self {
        let server = std::env::var("RUNLANE_TEST_DATABASE_SERVER")
            .expect("RUNLANE_TEST_DATABASE_SERVER names a PostgreSQL server, as in postgres://postgres@127.0.0.1:5432");
        let name = format!("reads_{}", runlane::domain::ids::new_id().simple());
        let mut connection = PgConnection::connect_with(&options(&server, "postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        let url = SecretString::from(format!("{}/{name}", server.trim_end_matches('/')));
        let settings = PoolSettings {
            size: connections,
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(120),
            lock_timeout: Duration::from_secs(30),
        };
        let pool = store::connect(&url, "reads", settings).unwrap();
        store::migrate(&pool).await.unwrap();
        Self { name, server, pool }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Drops the database.
    pub(crate) async fn drop(self) {
        self.pool.close().await;
        let pool = PgPoolOptions::new().connect_with(options(&self.server, "postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("drop database {} with (force)", self.name)))
            .execute(&pool)
            .await
            .unwrap();
    }
}

fn options(server: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::from_str(server).expect("RUNLANE_TEST_DATABASE_SERVER is a URL").database(database)
}
