//! What a database must promise before runs that cost money are entrusted to it.

use std::time::Duration;

use super::{StartError, database_url, patience, pool_settings};
use crate::config::Config;
use crate::store::{Store, connect, reach};

/// Waits for the database and refuses one that can lose what it has confirmed, unless the configuration allows it.
///
/// # Errors
/// [`StartError::Unsafe`], or why the database cannot be asked.
pub(super) async fn require(config: &Config, wait: Duration) -> Result<(), StartError> {
    let url = database_url(config)?;
    reach(&url, wait).await.map_err(StartError::Database)?;
    let pool =
        connect(&url, "runlane start", pool_settings(&config.numbers, 1)).map_err(StartError::Database)?;
    let store = Store::new(pool).patient(patience(&config.numbers));
    let gaps = store.durability().await.map_err(StartError::Database)?.gaps();
    store.close().await;
    if gaps.is_empty() {
        return Ok(());
    }
    let gaps = gaps.join(", ");
    if !config.allow_unsafe_postgres {
        return Err(StartError::Unsafe(gaps));
    }
    tracing::warn!(
        gaps,
        "PostgreSQL may lose what it has confirmed; RUNLANE_ALLOW_UNSAFE_POSTGRES accepts that"
    );
    Ok(())
}
