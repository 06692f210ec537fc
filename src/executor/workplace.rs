//! Where workers work: a private directory each, with a record by which leftovers of a dead node are found.
//!
//! ```text
//! work/lock            held while a node moves in or clears away
//! work/<node>/lock     held as long as the node lives
//! work/<node>/7/       the seventh worker's directory; also its TMPDIR
//! work/<node>/7.pid    its process: number, time of its start, start of the system
//! ```

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::OnceCell;

use super::settings::{PLACE, Settings};
use crate::domain::ids;
use crate::process::kin::{self, Mark};
use crate::process::{Group, Pipes};

/// The directory of one node's workers; made when it is first needed.
#[derive(Debug)]
pub(super) struct Workplace {
    root: PathBuf,
    house: OnceCell<House>,
}

/// What one node has for as long as it lives.
#[derive(Debug)]
struct House {
    path: PathBuf,
    /// Tells other nodes that this one lives.
    _lock: File,
    desks: AtomicU64,
}

/// One worker's directory; it is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Desk {
    path: PathBuf,
    record: PathBuf,
}

impl Workplace {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), house: OnceCell::new() }
    }

    /// Moves in: ends what dead nodes have left behind, and makes this node's directory.
    ///
    /// # Errors
    /// What the operating system says, with the directory's name.
    pub async fn open(&self) -> io::Result<()> {
        self.house().await.map(drop)
    }

    async fn house(&self) -> io::Result<&House> {
        let make = || async {
            let root = std::path::absolute(&self.root)?;
            let made = tokio::task::spawn_blocking(move || House::move_in(&root)).await?;
            made.map_err(|error| {
                let message = format!("the directory {} cannot be used: {error}", self.root.display());
                io::Error::new(error.kind(), message)
            })
        };
        self.house.get_or_try_init(make).await
    }

    /// Starts a worker at a desk of its own.
    ///
    /// # Errors
    /// What the operating system says when the directory cannot be made or the program cannot be started.
    pub async fn start(&self, settings: &Settings, serve: bool) -> io::Result<(Group, Pipes, Desk)> {
        let house = self.house().await?;
        let desk = house.desk()?;
        let command = settings.command(serve, &desk.path)?;
        let mark = Mark::exact(PLACE, desk.path.as_os_str());
        let program = command.as_std().get_program().to_owned();
        let (group, pipes) = Group::start(command, settings.limits(serve), mark)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        desk.sign(group.pid())?;
        Ok((group, pipes, desk))
    }
}

impl House {
    fn move_in(root: &Path) -> io::Result<Self> {
        private().recursive(true).create(root)?;
        // Held to the end of this function: nobody takes a directory for a dead node's before its lock is held.
        let door = lock_file(&root.join("lock"))?;
        door.lock()?;
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            if path.is_dir() && is_abandoned(&path)? {
                clear_away(&path)?;
            }
        }
        let path = root.join(ids::new_id().simple().to_string());
        private().create(&path)?;
        let lock = lock_file(&path.join("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock, desks: AtomicU64::new(1) })
    }

    fn desk(&self) -> io::Result<Desk> {
        let number = self.desks.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        private().create(&path)?;
        Ok(Desk { path, record: self.path.join(format!("{number}.pid")) })
    }
}

impl Drop for House {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Desk {
    fn sign(&self, pid: u32) -> io::Result<()> {
        let started = kin::started(pid).unwrap_or_default();
        std::fs::write(&self.record, format!("{pid} {started} {}\n", kin::boot().unwrap_or_default()))
    }

    /// Removes the directory: of a worker that is gone.
    pub async fn clear(self) {
        // It may be large.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!(%error, "a worker's directory could not be removed");
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        remove(&self.path);
        if let Err(error) = std::fs::remove_file(&self.record)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(record = %self.record.display(), %error, "a worker's record could not be removed");
        }
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn lock_file(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// Whether nobody holds the lock of a node's directory any more.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let lock = match File::options().write(true).open(path.join("lock")) {
        Ok(lock) => lock,
        // It is locked before others look, and goes with the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Ends what a dead node's workers have left, and removes its directory.
fn clear_away(path: &Path) -> io::Result<()> {
    // A node that stops now removes its directory itself, its lock first or last.
    unless_gone(end_leftovers(path))?;
    unless_gone(std::fs::remove_dir_all(path))
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn end_leftovers(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let record = entry?.path();
        if record.extension() == Some(OsStr::new("pid"))
            && let Ok(text) = std::fs::read_to_string(&record)
            && let Some(pid) = recorded(&text)
        {
            // One that has ended and that nobody has reaped may have left others of its group.
            if kin::is_running(pid.cast_unsigned()) {
                tracing::warn!(pid, "a worker of a node that is gone still ran: killed");
            }
            if let Err(error) = killpg(Pid::from_raw(pid), Signal::SIGKILL) {
                tracing::warn!(pid, %error, "a leftover worker could not be killed");
            }
        }
    }
    let mut prefix = path.as_os_str().to_owned();
    prefix.push("/");
    let ended = kin::end(&Mark::prefix(PLACE, &prefix), None)?;
    if !ended.killed.is_empty() || !ended.left.is_empty() {
        tracing::warn!(killed = ?ended.killed, left = ?ended.left, "processes of a node that is gone still ran");
    }
    Ok(())
}

/// The process of a record, if it is still that one: a number is given to others after its process is gone.
fn recorded(text: &str) -> Option<i32> {
    let mut words = text.split_whitespace();
    let (pid, started, boot) =
        (words.next()?.parse::<u32>().ok()?, words.next()?.parse().ok()?, words.next()?);
    (kin::boot().as_deref() == Some(boot) && kin::started(pid) == Some(started)).then(|| pid.cast_signed())
}

fn remove(path: &Path) {
    if let Err(error) = unless_gone(std::fs::remove_dir_all(path)) {
        tracing::warn!(path = %path.display(), %error, "a directory of workers could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_come_while_others_go_find_a_place() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let house = House::move_in(root.path()).unwrap();
                        assert!(house.path.is_dir(), "nobody else takes it for abandoned");
                    }
                });
            }
        });
    }

    #[test]
    fn a_record_names_a_process_only_with_the_time_of_its_start() {
        let pid = std::process::id();
        let (started, boot) = (kin::started(pid).unwrap(), kin::boot().unwrap());
        assert_eq!(recorded(&format!("{pid} {started} {boot}\n")), Some(pid.cast_signed()));
        assert_eq!(recorded(&format!("{pid} {} {boot}\n", started + 1)), None);
        assert_eq!(recorded(&format!("{pid} {started} another-boot\n")), None);
        assert_eq!(recorded(""), None);
    }
}
