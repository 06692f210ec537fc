//! As whom the server runs: as this process's user, or, as PostgreSQL refuses root, as another.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User, geteuid};

use super::error::{During, EmbeddedError};

/// Users that root hands the server to, in order of preference.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The user of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
    pub(super) name: String,
    /// Whether it is another user than this process's.
    other: bool,
}

impl Account {
    /// The owner of an existing cluster's files, for root; else this process's user, or a stand-in for root.
    pub(super) fn choose(existing: &Path) -> Result<Self, EmbeddedError> {
        let uid = geteuid();
        if !uid.is_root() {
            let gid = nix::unistd::getegid().as_raw();
            return Ok(Self { uid: uid.as_raw(), gid, name: name_of(uid.as_raw()), other: false });
        }
        match std::fs::metadata(existing) {
            Ok(files) if files.uid() != 0 => {
                return Ok(Self {
                    uid: files.uid(),
                    gid: files.gid(),
                    name: name_of(files.uid()),
                    other: true,
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).during("look at", existing),
        }
        STAND_INS
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name, other: true })
            .ok_or(EmbeddedError::NoUser)
    }

    /// Whether the server runs as another user than this process.
    pub(super) fn is_other(&self) -> bool {
        self.other
    }

    /// Lets `command` run as this user.
    pub(super) fn apply(&self, command: &mut tokio::process::Command) {
        if self.other {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives `path` to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.other {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).during("give away", path)
    }

    /// Whether this user can enter `dir`. Asked of the operating system, so that access lists count.
    pub(super) fn reaches(&self, dir: &Path) -> Result<bool, EmbeddedError> {
        if !self.other {
            return Ok(true);
        }
        let shell = Path::new("/bin/sh");
        let outcome = std::process::Command::new(shell)
            .args(["-c", ":"])
            .env_clear()
            .current_dir(dir)
            .uid(self.uid)
            .gid(self.gid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match outcome {
            Ok(status) => Ok(status.success()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error).during("run, as the server's user,", shell),
        }
    }
}

/// The user's name, else its number.
fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
