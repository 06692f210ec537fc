//! `runlane with-database`: a command over a database that exists only for it. For the project's own tools.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{DATABASE_WAIT, prepare_database};
use crate::config::Config;
use crate::domain::ids;
use crate::embedded::{Cluster, Settings};
use crate::store::TemporaryDatabase;

/// What to run.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The command and its arguments; it finds the database in DATABASE_URL.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Makes a database with the schema in it, runs the command, removes the database and gives the command's exit code.
///
/// # Errors
/// When the database cannot be made or removed, or the command not be run.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let place = Place::make(&config).await?;
    let result = command(&config, place.url(), &arguments.command).await;
    let removed = place.remove().await;
    let code = result?;
    removed?;
    Ok(code)
}

/// Where the database is.
enum Place {
    /// On the server that DATABASE_URL names.
    Server(TemporaryDatabase),
    /// In a server and a directory of its own.
    Embedded(Box<Cluster>, Directory),
}

impl Place {
    async fn make(config: &Config) -> anyhow::Result<Self> {
        if let Some(url) = &config.database_url {
            let database =
                TemporaryDatabase::create(url).await.context("cannot make a temporary database")?;
            return Ok(Self::Server(database));
        }
        let directory = Directory::make()?;
        let settings = Settings { data_dir: directory.0.clone(), ..Settings::from_config(config) };
        let cluster = Cluster::start(&settings).await?;
        Ok(Self::Embedded(Box::new(cluster), directory))
    }

    fn url(&self) -> SecretString {
        match self {
            Self::Server(database) => database.url().clone(),
            Self::Embedded(cluster, _) => SecretString::from(cluster.url()),
        }
    }

    async fn remove(self) -> anyhow::Result<()> {
        match self {
            Self::Server(database) => database.remove().await.context("cannot remove the temporary database"),
            Self::Embedded(cluster, directory) => {
                cluster.stop().await?;
                directory.remove()
            }
        }
    }
}

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    /// One that the server's user can pass through when we are root.
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("runlane-{}", ids::new_id().simple()));
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // After a failed start; `remove` has reported already, and a directory that is gone is what was wanted.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn command(config: &Config, url: SecretString, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut config = config.clone();
    config.database_url = Some(url.clone());
    prepare_database(&config, DATABASE_WAIT).await?;
    let program = &command[0];
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = tokio::process::Command::new(program)
        .args(&command[1..])
        .env("DATABASE_URL", url.expose_secret())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            // A terminal's Ctrl-C has reached the command as well.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = child.id() {
                    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
                }
            }
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
