//! Makes, starts and stops the server.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::error::{During, EmbeddedError, tail};
use super::package::remove_dir;
use super::place::{PORT, Place, ROLE};
use super::programs::Programs;
use super::{Settings, orphan};

/// The database that a cluster is made for.
pub(super) const DATABASE: &str = "runlane";
/// How often a starting server's own report is read; it has no other way to say that it is ready.
const LOOK: Duration = Duration::from_millis(5);
/// PostgreSQL's code for a database that does not exist.
const INVALID_CATALOG_NAME: &str = "3D000";

/// What holds for every cluster; durability stays at PostgreSQL's safe defaults.
const OPTIONS: [(&str, &str); 6] = [
    ("listen_addresses", ""),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_checkpoints", "off"),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
];

/// Makes the cluster beside its place and renames it, so that a half-made one is never taken for a whole.
pub(super) async fn initialise(
    place: &Place,
    programs: &Programs,
    settings: &Settings,
    deadline: Instant,
) -> Result<(), EmbeddedError> {
    let new = place.base.join("postgres.new");
    remove_dir(&new)?;
    DirBuilder::new().mode(0o700).create(&new).during("make", &new)?;
    place.account.own(&new)?;
    let program = programs.program("initdb");
    let mut command = command(&program, place);
    command
        .args(["--encoding=UTF8", "--no-locale", "--data-checksums", "--no-instructions"])
        .args(["--auth-local=trust", "--auth-host=reject"])
        .arg(format!("--username={ROLE}"))
        .args(unsynced(settings).then_some("--no-sync"))
        .arg("--pgdata")
        .arg(&new)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = crate::process::spawn(command, Signal::SIGKILL).await.during("run", &program)?;
    let output = timeout_at(deadline, child.wait_with_output())
        .await
        .map_err(|_| start_timeout("making the embedded PostgreSQL's cluster", settings.start_timeout))?
        .during("wait for", &program)?;
    if !output.status.success() {
        return Err(EmbeddedError::Failed {
            program: program.display().to_string(),
            status: output.status.to_string(),
            output: tail(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    std::fs::rename(&new, &place.data).during("name", &place.data)?;
    // The new name must survive a power cut like the files themselves, which initdb has synced.
    File::open(&place.base).and_then(|dir| dir.sync_all()).during("sync", &place.base)
}

/// Whether the caller gives durability up: a throw-away cluster need not be synced when it is made either.
fn unsynced(settings: &Settings) -> bool {
    settings.options.iter().rfind(|(name, _)| name == "fsync").is_some_and(|(_, value)| value == "off")
}

/// A server that this process started.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) pid: u32,
}

impl Server {
    /// Starts the server and waits until it takes connections.
    pub(super) async fn start(
        place: &Place,
        programs: &Programs,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Self, EmbeddedError> {
        place.make_socket_dir()?;
        let program = programs.program("postgres");
        let mut command = command(&program, place);
        command.arg("-D").arg(&place.data).arg("-p").arg(PORT.to_string()).arg("-k").arg(&place.socket_dir);
        let own = OPTIONS.iter().map(|&(name, value)| (name, value));
        let asked = settings.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(asked).chain([("cluster_name", place.cluster_name.as_str())]) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(Stdio::null()).stderr(open_log(place)?);
        let child = crate::process::spawn(command, Signal::SIGINT).await.during("run", &program)?;
        let pid = child.id().ok_or_else(|| std::io::Error::other("it has already been waited for"));
        let mut server = Self { child, pid: pid.during("watch", &program)? };
        match server.ready(place, &program, deadline, settings.start_timeout).await {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop(place, settings.stop_timeout).await?;
                Err(error)
            }
        }
    }

    /// Waits until the server reports that it is ready; it is then done with recovery.
    async fn ready(
        &mut self,
        place: &Place,
        program: &Path,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), EmbeddedError> {
        let file = place.data.join("postmaster.pid");
        loop {
            if orphan::read(&file)?.is_some_and(|said| said.ready && said.pid == self.pid.cast_signed()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(start_timeout("the start of the embedded PostgreSQL", limit));
            }
            tokio::select! {
                status = self.child.wait() => {
                    let status = status.during("wait for", program)?.to_string();
                    let log = std::fs::read(&place.log).during("read", &place.log)?;
                    let output = tail(&String::from_utf8_lossy(&log));
                    return Err(EmbeddedError::Failed { program: program.display().to_string(), status, output });
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Shuts the server down and reaps it; one that takes longer than `limit` is told to leave recovery to the next
    /// start, and one that does not obey that either is killed.
    pub(super) async fn stop(mut self, place: &Place, limit: Duration) -> Result<(), EmbeddedError> {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
            // A child that has not been waited for keeps its number, so the signal reaches nobody else.
            if self.child.id().is_some() {
                kill(Pid::from_raw(self.pid.cast_signed()), signal)
                    .map_err(std::io::Error::from)
                    .during("stop the server of", &place.data)?;
            }
            match tokio::time::timeout(limit, self.child.wait()).await {
                Ok(status) => {
                    let status = status.during("wait for the server of", &place.data)?;
                    if !status.success() {
                        tracing::warn!(%status, "the embedded PostgreSQL did not shut down in order: the next start recovers");
                    }
                    break;
                }
                Err(_) => tracing::warn!(%signal, "the embedded PostgreSQL does not end"),
            }
        }
        remove_dir(&place.socket_dir)
    }
}

/// Makes the cluster's database unless it is there, which also proves that the server answers.
pub(super) async fn ensure_database(
    place: &Place,
    deadline: Instant,
    limit: Duration,
) -> Result<(), EmbeddedError> {
    let work = async {
        match connect(place, DATABASE).await {
            Ok(connection) => connection.close().await,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(INVALID_CATALOG_NAME) => {
                let mut connection = connect(place, "postgres").await?;
                connection.execute("CREATE DATABASE runlane").await?;
                connection.close().await
            }
            Err(error) => Err(error),
        }
    };
    match timeout_at(deadline, work).await {
        Ok(outcome) => outcome.map_err(EmbeddedError::Database),
        Err(_) => Err(start_timeout("the first answer of the embedded PostgreSQL", limit)),
    }
}

async fn connect(place: &Place, database: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = place.url(database).parse()?;
    PgConnection::connect_with(&options).await
}

/// The log of this start; that of the start before is kept, so that two are the most there is.
fn open_log(place: &Place) -> Result<File, EmbeddedError> {
    let log = &place.log;
    match std::fs::rename(log, log.with_extension("log.1")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).during("rename", log);
        }
        _ => {}
    }
    File::options().append(true).create(true).mode(0o600).open(log).during("open", log)
}

/// A program of PostgreSQL's with an environment that holds none of our secrets and none of its own variables.
fn command(program: &Path, place: &Place) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir(&place.base).stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name).filter(|value| value != OsStr::new("")) {
            command.env(name, value);
        }
    }
    place.account.apply(&mut command);
    command
}

fn start_timeout(what: &str, limit: Duration) -> EmbeddedError {
    EmbeddedError::Timeout { what: what.to_owned(), limit, variable: "RUNLANE_POSTGRES_START_TIMEOUT_MS" }
}
