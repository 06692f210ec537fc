//! What a child may use at most.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Ceilings of one process that its children inherit; `None` leaves what this process has. No child dumps core unless
/// this is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory that it may write to, in bytes. Beyond, allocations fail.
    pub memory_bytes: Option<u64>,
    /// Processor time in seconds. Beyond, it gets SIGXCPU, and a second later SIGKILL.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// The largest file that it may write, in bytes.
    pub file_bytes: Option<u64>,
    /// Whether it may dump core: a core holds prompts and keys.
    pub no_core: bool,
}

/// Soft and hard ceilings, ready to be set between fork and exec.
pub(super) struct Prepared(Vec<(Resource, u64, u64)>);

impl Limits {
    /// Fits the limits under this process's own: only root may raise a hard one.
    pub(super) fn prepare(self) -> io::Result<Prepared> {
        let second_more = self.cpu_seconds.map(|n| (n, n.saturating_add(1)));
        let same = |value: Option<u64>| value.map(|n| (n, n));
        let wanted = [
            // Counts memory that can be written to; address space alone costs nothing, and runtimes reserve much of it.
            (Resource::RLIMIT_DATA, same(self.memory_bytes)),
            (Resource::RLIMIT_CPU, second_more),
            (Resource::RLIMIT_NOFILE, same(self.open_files)),
            (Resource::RLIMIT_FSIZE, same(self.file_bytes)),
            (Resource::RLIMIT_CORE, self.no_core.then_some((0, 0))),
        ];
        let mut prepared = Vec::new();
        for (resource, limit) in wanted {
            if let Some((soft, hard)) = limit {
                let (_, most) = getrlimit(resource)?;
                prepared.push((resource, soft.min(most), hard.min(most)));
            }
        }
        Ok(Prepared(prepared))
    }
}

impl Prepared {
    /// Sets them for this process. Makes system calls only, and allocates nothing.
    pub(super) fn apply(&self) -> io::Result<()> {
        for &(resource, soft, hard) in &self.0 {
            setrlimit(resource, soft, hard)?;
        }
        Ok(())
    }
}
