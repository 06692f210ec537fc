//! What a worker has started, also where it left the worker's process group and session.
//!
//! Linux tells nobody of grandchildren, so this looks through `/proc`: for the session that the worker leads, for the
//! environment that it was given and hands on, and for the children of those. Only what has shed all three escapes: a
//! process that left the session, lost its parent, and was started with an environment made from nothing.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long killed processes are waited for: one that the kernel holds cannot be hurried.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// What a process and all that it starts have in their environment, and nothing else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    entry: Vec<u8>,
    is_prefix: bool,
}

impl Mark {
    /// The variable with exactly this value.
    #[must_use]
    pub fn exact(variable: &str, value: &std::ffi::OsStr) -> Self {
        Self { entry: Self::entry(variable, value), is_prefix: false }
    }

    /// The variable with any value that begins so.
    #[must_use]
    pub fn prefix(variable: &str, value: &std::ffi::OsStr) -> Self {
        Self { entry: Self::entry(variable, value), is_prefix: true }
    }

    fn entry(variable: &str, value: &std::ffi::OsStr) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        [variable.as_bytes(), b"=", value.as_bytes()].concat()
    }

    /// Whether an environment, as `/proc` gives it, has this mark.
    fn is_in(&self, environment: &[u8]) -> bool {
        environment.split(|byte| *byte == 0).any(|entry| {
            if self.is_prefix { entry.starts_with(&self.entry) } else { entry == self.entry.as_slice() }
        })
    }
}

/// One line of the system's table of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    /// In ticks since the system's start: with the pid, it names a process for good.
    started: u64,
    is_dead: bool,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name comes second, in brackets, and may hold anything.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            pid,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn has(&self, mark: &Mark) -> bool {
        std::fs::read(format!("/proc/{}/environ", self.pid)).is_ok_and(|all| mark.is_in(&all))
    }
}

/// When a process started, in ticks since the system's start; `None` when there is none of this number.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    Process::read(pid.cast_signed()).map(|process| process.started)
}

/// Whether there is a process of this number that has not ended, reaped or not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    Process::read(pid.cast_signed()).is_some_and(|process| !process.is_dead)
}

/// Which start of the system this is: pids and ticks begin anew with the next.
#[must_use]
pub fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// What became of a family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Who was killed.
    pub killed: Vec<i32>,
    /// Who could not be, or is not gone yet.
    pub left: Vec<i32>,
}

/// Kills everything that has `mark`, is in the session that `leader` leads, or descends from those; `leader` itself is
/// left to whoever reaps it, and must not be reaped yet. Blocks until they are gone, for seconds at most.
///
/// # Errors
/// When the table of processes cannot be read.
#[cfg(target_os = "linux")]
pub fn end(mark: &Mark, leader: Option<u32>) -> io::Result<Ended> {
    let leader = leader.map(u32::cast_signed);
    let since = leader.and_then(Process::read).map_or(0, |process| process.started);
    let deadline = Instant::now() + PATIENCE;
    let mut killed = HashSet::new();
    loop {
        let all = processes()?;
        reap(&all, &killed);
        let left = family(&all, mark, leader, since);
        for &pid in &left {
            // Whoever is gone meanwhile, or is another user's, is told by the next look.
            if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
                killed.insert(pid);
            }
        }
        if left.is_empty() || Instant::now() > deadline {
            let mut killed: Vec<i32> = killed.into_iter().collect();
            killed.sort_unstable();
            return Ok(Ended { killed, left });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Elsewhere nothing tells who is whose: the process group has to do.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn end(_mark: &Mark, _leader: Option<u32>) -> io::Result<Ended> {
    Ok(Ended::default())
}

fn processes() -> io::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        // Who ends while we look is no error.
        all.extend(pid.and_then(Process::read));
    }
    Ok(all)
}

/// The living of `all` that belong together.
fn family(all: &[Process], mark: &Mark, leader: Option<i32>, since: u64) -> Vec<i32> {
    let own = nix::unistd::getpid().as_raw();
    let mut found: HashSet<i32> = leader.into_iter().collect();
    let may_be = |process: &&Process| {
        process.started >= since && process.pid != own && Some(process.pid) != leader && !process.is_dead
    };
    let living: Vec<&Process> = all.iter().filter(may_be).collect();
    found.extend(
        living.iter().filter(|p| Some(p.session) == leader || p.has(mark)).map(|process| process.pid),
    );
    loop {
        let before = found.len();
        let children: Vec<i32> = living.iter().filter(|p| found.contains(&p.parent)).map(|p| p.pid).collect();
        found.extend(children);
        if found.len() == before {
            break;
        }
    }
    found.into_iter().filter(|pid| Some(*pid) != leader).collect()
}

/// Orphans come to the first process of a container, which may be this one: the dead ones that we killed are ours to reap.
fn reap(all: &[Process], killed: &HashSet<i32>) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let own = nix::unistd::getpid().as_raw();
    for orphan in all.iter().filter(|p| p.is_dead && p.parent == own && killed.contains(&p.pid)) {
        if let Err(error) = waitpid(Pid::from_raw(orphan.pid), Some(WaitPidFlag::WNOHANG)) {
            tracing::debug!(pid = orphan.pid, %error, "an orphan could not be reaped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "12 (a) Z 9 (b) S 7 11 10 0 -1 4194560 0 0 0 0 1 2 0 0 20 0 1 0 987 0 0";
        let process = Process { pid: 12, parent: 7, session: 10, started: 987, is_dead: false };
        assert_eq!(Process::parse(12, stat), Some(process));
        assert_eq!(Process::parse(12, "12 (a) S 7"), None);
        assert_eq!(
            started(std::process::id()),
            Process::read(std::process::id().cast_signed()).map(|p| p.started)
        );
    }

    #[test]
    fn what_has_ended_does_not_run_even_if_nobody_has_reaped_it() {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert!(is_running(pid));
        drop(child.stdin.take());
        waitid(Id::Pid(Pid::from_raw(pid.cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .unwrap();
        assert!(started(pid).is_some() && !is_running(pid));
        child.wait().unwrap();
        assert_eq!(started(pid), None);
    }

    #[test]
    fn a_mark_is_found_whole() {
        let environment = b"PATH=/bin\0XPLACE=/w/1\0PLACE=/w/12\0";
        let exact = |value: &str| Mark::exact("PLACE", value.as_ref()).is_in(environment);
        assert!(exact("/w/12") && !exact("/w/1") && !exact("/w/"));
        assert!(Mark::prefix("PLACE", "/w/".as_ref()).is_in(environment));
        assert!(!Mark::prefix("PLACE", "/v/".as_ref()).is_in(environment));
    }

    #[test]
    fn a_family_is_the_session_and_all_descendants_and_no_dead_or_older_process() {
        let process =
            |pid, parent, session, started| Process { pid, parent, session, started, is_dead: false };
        let base = 4_000_000; // Above the kernel's greatest pid: no such process has an environment.
        let leader = base + 1;
        let all = [
            process(leader, 1, leader, 50),
            process(base + 2, 1, leader, 51),
            process(base + 3, base + 2, base + 3, 52),
            process(base + 4, base + 3, base + 3, 53),
            process(base + 5, 1, base + 5, 54),
            process(base + 6, 1, leader, 49),
            Process { is_dead: true, ..process(base + 7, 1, leader, 55) },
            process(base + 8, leader, base + 8, 56),
        ];
        let mark = Mark::exact("NOBODY_HAS", "this".as_ref());
        let mut found = family(&all, &mark, Some(leader), 50);
        found.sort_unstable();
        assert_eq!(found, [base + 2, base + 3, base + 4, base + 8]);
    }
}
