//! Processes: who is whose child, and who is left over.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// Makes every process whose parent ends our child, so that no orphan can hide.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("Linux lets a process adopt orphans");
}

/// A process as `/proc` has it. Its start time tells it from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// The operating system's number.
    pub pid: u32,
    parent: u32,
    started: u64,
    state: char,
    name: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        // It may have ended since it was listed.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            name: head.split_once('(')?.1.to_owned(),
        })
    }

    /// Whether this very process still runs; one that has ended and was not reaped does not.
    pub fn is_running(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }
}

fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The children of `pid`, theirs, and so on.
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut by_parent: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let children = by_parent.remove(&parent).unwrap_or_default();
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
    }
    found
}

/// Kilobytes of memory that a process has in use; 0 when it is gone.
pub fn resident_kb(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The same in megabytes.
pub fn resident_mb(pid: u32) -> i64 {
    resident_kb(pid) / 1_024
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// There is no other tick on Linux.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that a process has used, and those that it has waited for.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u32 = [11, 12, 13, 14].iter().filter_map(|&i| fields.get(i)?.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// How much of the machine processes that are not ours take.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    since: Instant,
    all: Duration,
    ours: Duration,
}

impl Others {
    /// From now on.
    pub fn watch() -> Self {
        Self { since: Instant::now(), all: busy(), ours: ours() }
    }

    /// Their part of all processors so far, 0 to 1.
    pub fn share(self) -> f64 {
        let theirs = (busy().saturating_sub(self.all)).saturating_sub(ours().saturating_sub(self.ours));
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        theirs.as_secs_f64() / (self.since.elapsed().as_secs_f64() * cores)
    }
}

/// What all processes have used: user, nice, system, interrupts; neither idle nor waiting for disks.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.lines().next().unwrap_or_default().split_whitespace().collect();
    let ticks: u32 = [1, 2, 3, 6, 7].iter().filter_map(|&i| fields.get(i)?.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// What we and ours have used; whoever was waited for is in its parent.
fn ours() -> Duration {
    let me = std::process::id();
    cpu(me) + descendants(me).iter().map(|process| cpu(process.pid)).sum::<Duration>()
}

/// Our children that still run after `grace`: at the end there must be none.
pub fn orphans_after(grace: Duration) -> Vec<Process> {
    let (me, deadline) = (std::process::id(), Instant::now() + grace);
    loop {
        let found: Vec<Process> =
            all().into_iter().filter(|process| process.parent == me && process.state != 'Z').collect();
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes of nodes that are gone, which must be gone too.
#[derive(Debug, Default)]
pub struct Left(HashSet<Process>);

impl Left {
    /// Notes what a node leaves behind if it ends now.
    pub fn note(&mut self, node: u32) {
        self.0.extend(descendants(node));
    }

    /// Those that still run, described.
    pub fn running(&self) -> Vec<String> {
        self.0.iter().filter(|process| process.is_running()).map(|process| format!("{process:?}")).collect()
    }
}
