//! Where the cluster's files and its socket are.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Settings;
use super::account::Account;
use super::error::{During, EmbeddedError};

/// In the data directory: where the cluster is, when it is elsewhere.
const POINTER: &str = "postgres.location";
/// The server's port number; without TCP it only names the socket.
pub(super) const PORT: u16 = 5432;
/// The cluster's superuser.
pub(super) const ROLE: &str = "runlane";
/// A socket's whole path must be shorter than 104 bytes (macOS; 108 on Linux), `/.s.PGSQL.5432` included.
const SOCKET_DIR_MAX_BYTES: usize = 103 - "/.s.PGSQL.5432".len();

/// The directories of one cluster, and the user that its server runs as.
#[derive(Debug)]
pub(super) struct Place {
    /// Holds `postgres`, `postgres.lock` and `cache`: the data directory, unless the server's user cannot reach that.
    pub(super) base: PathBuf,
    /// The cluster's files.
    pub(super) data: PathBuf,
    /// The server's log, always in the data directory.
    pub(super) log: PathBuf,
    /// Only the server's user, and root, may enter.
    pub(super) socket_dir: PathBuf,
    /// Names the cluster in the titles of all its processes.
    pub(super) cluster_name: String,
    pub(super) account: Account,
}

impl Place {
    /// Chooses the place, and makes its directories but for the cluster's files and the socket's.
    pub(super) fn prepare(settings: &Settings) -> Result<Self, EmbeddedError> {
        let wanted = &settings.data_dir;
        let root = nix::unistd::geteuid().is_root();
        // As root another user must pass through; what is private below has modes of its own.
        make_dir(wanted, if root { 0o711 } else { 0o700 })?;
        let data_dir = wanted.canonicalize().during("resolve", wanted)?;
        let (base, account) = if root { place_for_root(&data_dir, settings)? } else { own_place(&data_dir)? };
        Ok(Self {
            data: base.join("postgres"),
            log: data_dir.join("postgres.log"),
            socket_dir: socket_dir(&base, account.uid),
            cluster_name: format!("runlane-{}", digest(&base)),
            base,
            account,
        })
    }

    /// The major version of the existing cluster; `None` when there is none yet.
    pub(super) fn version(&self) -> Result<Option<u32>, EmbeddedError> {
        let path = self.data.join("PG_VERSION");
        match std::fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map(Some)
                .map_err(|_| EmbeddedError::BadVersionFile { path, text: text.trim().to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).during("read", &path),
        }
    }

    /// Makes the socket's directory anew. What a killed server left in it would stop its successor, so the caller
    /// has made sure that none is left.
    pub(super) fn make_socket_dir(&self) -> Result<(), EmbeddedError> {
        let dir = &self.socket_dir;
        if dir.symlink_metadata().is_ok() {
            require_private(dir, self.account.uid, &self.account.name, 0o077)?;
            std::fs::remove_dir_all(dir).during("remove", dir)?;
        }
        DirBuilder::new().mode(0o700).create(dir).during("make", dir)?;
        self.account.own(dir)
    }

    /// The URL of a database of this cluster.
    pub(super) fn url(&self, database: &str) -> String {
        let dir = self.socket_dir.display();
        // The directory's name needs no escaping: see `socket_dir`. The host is only there because a URL needs one.
        format!("postgres://{ROLE}@localhost:{PORT}/{database}?host={dir}&sslmode=disable")
    }
}

/// Any user but root: the data directory itself.
fn own_place(data_dir: &Path) -> Result<(PathBuf, Account), EmbeddedError> {
    Ok((data_dir.to_owned(), Account::choose(&data_dir.join("postgres"))?))
}

/// Root: where the cluster is already, else the data directory if the server's user reaches it, else a fallback.
fn place_for_root(data_dir: &Path, settings: &Settings) -> Result<(PathBuf, Account), EmbeddedError> {
    let pointer = data_dir.join(POINTER);
    match std::fs::read_to_string(&pointer) {
        Ok(text) => {
            let base = PathBuf::from(text.trim_end_matches('\n'));
            if !base.exists() {
                return Err(EmbeddedError::Gone { pointer, base });
            }
            require_private(&base, 0, "root", 0o022)?;
            let account = Account::choose(&base.join("postgres"))?;
            return Ok((base, account));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).during("read", &pointer),
    }
    let files = data_dir.join("postgres");
    let account = Account::choose(&files)?;
    if account.reaches(data_dir)? {
        return Ok((data_dir.to_owned(), account));
    }
    if files.exists() {
        return Err(EmbeddedError::Unreachable { user: account.name, path: data_dir.to_owned() });
    }
    let mut refused = EmbeddedError::Unreachable { user: account.name.clone(), path: data_dir.to_owned() };
    for parent in &settings.fallback_dirs {
        match fallback(parent, data_dir, &account) {
            Ok(Some(base)) => {
                tracing::info!(data_dir = %data_dir.display(), place = %base.display(), user = account.name,
                    "the server's user cannot reach the data directory: the cluster is elsewhere");
                let text = format!("{}\n", base.display());
                std::fs::write(&pointer, text).during("write", &pointer)?;
                return Ok((base, account));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a place for the cluster cannot be used");
                refused = error;
            }
        }
    }
    Err(refused)
}

/// The directory below `parent` that stands for `data_dir`, if the server's user can reach it.
fn fallback(parent: &Path, data_dir: &Path, account: &Account) -> Result<Option<PathBuf>, EmbeddedError> {
    make_dir(parent, 0o711)?;
    require_private(parent, 0, "root", 0o022)?;
    let base = parent.join(digest(data_dir));
    make_dir(&base, 0o711)?;
    require_private(&base, 0, "root", 0o022)?;
    Ok(account.reaches(&base)?.then_some(base))
}

/// Makes `dir` and its parents; a new `dir` gets `mode`, whatever the umask.
fn make_dir(dir: &Path, mode: u32) -> Result<(), EmbeddedError> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).during("make", parent)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => std::fs::set_permissions(dir, Permissions::from_mode(mode)).during("protect", dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error).during("make", dir),
    }
}

/// Refuses a directory that is a link, somebody else's, or open in a way of `forbidden` (mode bits).
fn require_private(dir: &Path, uid: u32, owner: &str, forbidden: u32) -> Result<(), EmbeddedError> {
    let found = std::fs::symlink_metadata(dir).during("look at", dir)?;
    if found.is_dir() && found.uid() == uid && found.mode() & forbidden == 0 {
        return Ok(());
    }
    Err(EmbeddedError::NotPrivate { path: dir.to_owned(), owner: owner.to_owned() })
}

/// The socket's directory: beside the cluster if the path is short, and plain enough for a URL and the server's
/// comma-separated setting; else below the temporary directory. Its name depends on the cluster's place alone, so
/// that a killed owner's successor finds and reuses it.
fn socket_dir(base: &Path, uid: u32) -> PathBuf {
    let name = format!("runlane-{uid}-{}", &digest(base)[..12]);
    [base.join("socket"), std::env::temp_dir().join(&name)]
        .into_iter()
        .find(|dir| dir.is_absolute() && is_plain(dir) && dir.as_os_str().len() <= SOCKET_DIR_MAX_BYTES)
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

fn is_plain(dir: &Path) -> bool {
    dir.as_os_str().as_encoded_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(b))
}

/// The first 32 hexadecimal digits of the path's SHA-256.
fn digest(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..16])
}
