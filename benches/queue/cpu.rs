//! Processor time: what work costs, however busy the machine is with something else.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The kernel's unit of processor time in `/proc`, on every Linux that there is.
const TICK: Duration = Duration::from_millis(10);

/// Measures the processor time of a process and of all that it starts, ended children included.
pub struct Meter {
    pid: u32,
    before: Duration,
    is_alone: bool,
}

impl Meter {
    /// Starts with this process: the benches, a server within and, unless `DATABASE_URL` names another, PostgreSQL.
    pub fn ours() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    /// Starts with this process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { pid, before: spent(pid)?, is_alone: false })
    }

    /// Starts with this process alone: what it has started does not count.
    pub fn alone() -> anyhow::Result<Self> {
        Ok(Self { pid: std::process::id(), before: spent_alone()?, is_alone: true })
    }

    /// What has been used since.
    pub fn used(&self) -> anyhow::Result<Duration> {
        let now = if self.is_alone { spent_alone()? } else { spent(self.pid)? };
        Ok(now.saturating_sub(self.before))
    }
}

fn spent_alone() -> anyhow::Result<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = used.user_time() + used.system_time();
    Ok(Duration::from_micros(u64::try_from(time.num_microseconds())?))
}

fn spent(root: u32) -> anyhow::Result<Duration> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks: HashMap<u32, u64> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended meanwhile is counted with its parent.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // Its name, in parentheses, may hold anything; the numbers follow it.
        let fields: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
        let number = |place: usize| anyhow::Ok(fields.get(place).context("a field")?.parse::<u64>()?);
        children.entry(u32::try_from(number(1)?)?).or_default().push(pid);
        // User and system time, its own and that of children that have ended.
        ticks.insert(pid, number(11)? + number(12)? + number(13)? + number(14)?);
    }
    let mut sum = 0;
    let mut waiting = vec![root];
    while let Some(pid) = waiting.pop() {
        sum += ticks.get(&pid).copied().unwrap_or_default();
        waiting.extend(children.remove(&pid).into_iter().flatten());
    }
    Ok(TICK * u32::try_from(sum)?)
}

/// The share of time in which somebody waited for a processor, over the last ten seconds, as Linux says it.
pub fn pressure() -> String {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let share = text.split_whitespace().find_map(|word| word.strip_prefix("avg10="));
    share.map_or_else(|| "unknown".to_owned(), |share| format!("{share} %"))
}
