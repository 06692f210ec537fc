//! The commands that keep running.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, DATABASE_WAIT, Roles, prepare_database};
use crate::config::Config;
use crate::domain::clock::Clock;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start.
pub async fn serve(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let roles = Roles { serves: true, executes: config.execute };
    until_signal(App::start(Arc::new(config), roles, clock).await?).await
}

/// Executes jobs until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start.
pub async fn work(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let roles = Roles { serves: false, executes: true };
    until_signal(App::start(Arc::new(config), roles, clock).await?).await
}

/// Migrates and ends.
///
/// # Errors
/// When the database cannot be reached or refuses.
pub async fn migrate(config: Config) -> anyhow::Result<()> {
    prepare_database(&config, DATABASE_WAIT).await?;
    println!("The database's schema is up to date.");
    Ok(())
}

/// The first signal drains, the second gives running jobs back at once.
pub(super) async fn until_signal(app: App) -> anyhow::Result<()> {
    let (stop, hurry) = app.stoppers();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if stop.is_cancelled() {
                tracing::info!(signal = name, "hurrying: running jobs are given back");
                hurry.cancel();
            } else {
                tracing::info!(
                    signal = name,
                    "stopping: running jobs may finish; a second signal gives them back"
                );
                stop.cancel();
            }
        }
    });
    app.stopped().await;
    Ok(())
}
