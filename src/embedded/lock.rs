//! One owner at a time: a lock that ends with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{During, EmbeddedError};

/// Holds the lock on a cluster's directory. The file stays, for removing a locked file lets two processes hold it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing the file is not enough: a child that is between its fork and its exec has the lock as well.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "a cluster's lock is not let go before its file is closed");
        }
    }
}

impl Lock {
    /// Takes the lock of the directory `base`.
    pub(super) fn take(base: &Path) -> Result<Self, EmbeddedError> {
        let path = base.join("postgres.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .during("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).during("read", &path)?;
                return Err(EmbeddedError::InUse { base: base.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(error).during("lock", &path),
        }
        file.set_len(0).during("write", &path)?;
        file.rewind().during("write", &path)?;
        writeln!(file, "{}", std::process::id()).during("write", &path)?;
        Ok(Self { file })
    }
}
