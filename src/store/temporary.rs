//! A database of its own on somebody's server, for tools that must not touch what is there.

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::Result;
use super::pool::options;
use crate::domain::ids;

/// A fresh, empty database; [`TemporaryDatabase::remove`] drops it.
#[derive(Debug)]
pub struct TemporaryDatabase {
    server: PgConnectOptions,
    name: String,
    url: SecretString,
}

impl TemporaryDatabase {
    /// Makes one on the server of `url`, whose user must be allowed to.
    ///
    /// # Errors
    /// The database's.
    pub async fn create(url: &SecretString) -> Result<Self> {
        let server = options(url)?;
        // Hexadecimal digits only: safe in SQL as they stand.
        let name = format!("runlane_{}", ids::new_id().simple());
        let url = SecretString::from(server.clone().database(&name).to_url_lossy().to_string());
        let database = Self { server, name, url };
        database.execute(format!(r#"CREATE DATABASE "{}" TEMPLATE template0"#, database.name)).await?;
        Ok(database)
    }

    /// Where it is, password included.
    #[must_use]
    pub const fn url(&self) -> &SecretString {
        &self.url
    }

    /// Drops it, and ends the connections that are left.
    ///
    /// # Errors
    /// The database's.
    pub async fn remove(self) -> Result<()> {
        self.execute(format!(r#"DROP DATABASE "{}" WITH (FORCE)"#, self.name)).await
    }

    async fn execute(&self, sql: String) -> Result<()> {
        let mut connection = PgConnection::connect_with(&self.server).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await?;
        Ok(())
    }
}
