//! What a command needs that does one thing and ends.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::ThreadRng;
use rand_chacha::ChaCha20Rng;

use super::{DATABASE_WAIT, StartError, database_url, pool_settings};
use crate::config::Config;
use crate::service::Service;
use crate::store::{PoolSettings, Store, connect, reach};

/// The store of a command that does one thing and ends, over the database of the configuration.
///
/// # Errors
/// [`StartError`] when it does not answer in time, or when its schema is not of this version.
pub async fn command_store(config: &Config, name: &str) -> Result<Store, StartError> {
    command_store_with(config, name, pool_settings(&config.numbers, 1)).await
}

/// [`command_store`] with other limits than the configured ones.
///
/// # Errors
/// As [`command_store`].
pub async fn command_store_with(
    config: &Config,
    name: &str,
    settings: PoolSettings,
) -> Result<Store, StartError> {
    let url = database_url(config)?;
    reach(&url, DATABASE_WAIT).await.map_err(StartError::Database)?;
    let store = Store::new(connect(&url, name, settings).map_err(StartError::Database)?);
    require_schema(&store).await?;
    Ok(store)
}

/// The services alone, over the database of the configuration: for commands that do one thing and end.
///
/// # Errors
/// [`StartError`] when it does not answer in time, or when its schema is not of this version.
pub async fn service(config: &Arc<Config>) -> Result<Service, StartError> {
    let store = command_store(config, "runlane command").await?;
    Ok(Service::new(store, Arc::clone(config), ChaCha20Rng::from_rng(&mut ThreadRng::default())))
}

/// Refuses a schema of another version: statements that were checked against this one's would fail or mislead.
async fn require_schema(store: &Store) -> Result<(), StartError> {
    let state = store.schema_state().await.map_err(StartError::Database)?;
    state.problem().map_or(Ok(()), |problem| Err(StartError::Schema(problem)))
}
