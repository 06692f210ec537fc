//! The commands that keep running.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::app::{App, DATABASE_WAIT, Roles, prepare_database};
use crate::config::Config;
use crate::domain::clock::Clock;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start.
pub async fn serve(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let roles = Roles { serves: true, executes: config.execute };
    run(config, roles, clock).await
}

/// Executes jobs until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start.
pub async fn work(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    run(config, Roles { serves: false, executes: true }, clock).await
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

async fn run(config: Config, roles: Roles, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let start = async { Ok(App::start(Arc::new(config), roles, clock).await?) };
    if let Some(app) = signals.unless_stopped(start).await? {
        signals.obeyed_by(app).await;
    }
    Ok(())
}

/// How long a start may go on after a signal, so that what is nearly ready, and may have claimed jobs, stops in order.
const NEARLY_READY: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT from now on: none is missed between two waits.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// One has come already.
    is_stopping: bool,
}

impl Signals {
    /// Takes the signals from their default action.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, is_stopping: false })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the first.
    pub(super) async fn come(&mut self) {
        if !self.is_stopping {
            self.next().await;
        }
    }

    /// What `start` makes. `None`: a signal came first.
    ///
    /// # Errors
    /// Those of `start`.
    pub(super) async fn unless_stopped<T>(
        &mut self,
        start: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Option<T>> {
        tokio::pin!(start);
        let name = tokio::select! {
            biased;
            started = &mut start => return started.map(Some),
            name = self.next() => name,
        };
        tracing::info!(signal = name, "stopping before the start was done");
        self.is_stopping = true;
        timeout(NEARLY_READY, start).await.map_or(Ok(None), |started| started.map(Some))
    }

    /// Waits for the app's end. The first signal drains, the second gives running jobs back at once.
    pub(super) async fn obeyed_by(mut self, app: App) {
        let (stop, hurry) = app.stoppers();
        if self.is_stopping {
            stop.cancel();
        }
        tokio::spawn(async move {
            loop {
                let name = self.next().await;
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
    }
}
