//! Brings a database's schema to this version.

use sqlx::PgPool;
use sqlx::migrate::Migrator;

pub use sqlx::migrate::MigrateError;

static MIGRATOR: Migrator = sqlx::migrate!("schema/migrations");

/// Applies the migrations that the database does not have yet. Nodes that start at once wait for each other.
///
/// # Errors
/// The database is newer than this program, was changed by hand, cannot be reached, or refuses a migration.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATOR.run(pool).await
}

/// Version and checksum of each migration of this program.
pub(super) fn known_migrations() -> Vec<(i64, Vec<u8>)> {
    MIGRATOR.iter().map(|m| (m.version, m.checksum.to_vec())).collect()
}
