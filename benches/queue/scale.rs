//! How much is measured.

use anyhow::{bail, ensure};

/// The phases in their order.
const PHASES: [&str; 16] = [
    "start",
    "reads",
    "polls",
    "control",
    "crowd",
    "throughput",
    "peers",
    "cost",
    "steady",
    "archive",
    "python",
    "pick-up",
    "limits",
    "node",
    "idle",
    "build",
];

/// The numbers of one run of the benches.
pub struct Scale {
    /// `short`, `default` or `full`.
    pub name: &'static str,
    /// Repeats whose median counts.
    pub rounds: usize,
    /// Jobs of the runs that are started.
    pub started: [u64; 3],
    /// Jobs that wait while controls and claims are timed, or that are archived.
    pub stored: i32,
    /// Jobs that wait while reads are timed, beside ten times as many that have ended.
    pub read: i32,
    /// Progress polls a second, and for how many seconds.
    pub polled: [u32; 2],
    /// How many minutes jobs are started, claimed and completed steadily; `BENCH_STEADY_MINUTES` unless it is short.
    pub steady_minutes: u32,
    /// The length of such a minute in seconds (of a short one fewer), and how many jobs are started in a second.
    pub steady: [u32; 2],
    /// Jobs of one lane that is claimed to its end while an old snapshot is held.
    pub long_lane: i32,
    /// Requests whose latencies make the percentiles.
    pub requests: usize,
    /// Times that each control is timed; cancels a fifth of it.
    pub controls: usize,
    /// Jobs that are claimed and completed without Python: so many that what a connection plans at first tells nothing.
    pub driven: i32,
    /// Jobs for every other queue that is measured.
    pub peers: u64,
    /// Jobs that Python runs.
    pub probed: u64,
    /// Jobs that get a Python process each, as Runlane does not do it.
    pub spawned: u32,
    /// Jobs that are started one at a time on an idle queue.
    pub picked_up: usize,
    /// Jobs a second beside which further ones are.
    pub load: u64,
    /// Probes that call a provider with a ceiling: of calls a minute, and of calls at once.
    pub called: [u64; 2],
    /// How long the idle node is watched.
    pub idle_seconds: u64,
    only: Option<Vec<String>>,
}

impl Scale {
    /// What `BENCH_SCALE`, `BENCH_ONLY` and `BENCH_STEADY_MINUTES` ask for.
    pub fn from_env() -> anyhow::Result<Self> {
        let given = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let only: Option<Vec<String>> =
            given("BENCH_ONLY").map(|text| text.split(',').map(|phase| phase.trim().to_owned()).collect());
        for phase in only.iter().flatten() {
            ensure!(
                PHASES.contains(&phase.as_str()),
                "BENCH_ONLY: {phase:?} is no phase; the phases are {PHASES:?}"
            );
        }
        let name = given("BENCH_SCALE");
        let is_full = name.as_deref() == Some("full");
        Ok(match name.as_deref() {
            None | Some("default" | "full") => Self {
                name: if is_full { "full" } else { "default" },
                rounds: 3,
                started: [1_000, 10_000, 100_000],
                stored: 1_000_000,
                read: if is_full { 1_000_000 } else { 100_000 },
                polled: [2_000, 20],
                steady_minutes: given("BENCH_STEADY_MINUTES").map_or(Ok(4), |text| text.parse())?,
                steady: [60, 1_000],
                long_lane: 100_000,
                requests: 1_000,
                controls: 25,
                driven: 240_000,
                peers: 50_000,
                probed: 20_000,
                spawned: 200,
                picked_up: 100,
                load: 1_000,
                called: [1_200, 1_200],
                idle_seconds: 60,
                only,
            },
            Some("short") => Self {
                name: "short",
                rounds: 1,
                started: [100, 1_000, 2_000],
                // More than a node does while it is watched.
                stored: 60_000,
                read: 2_000,
                polled: [100, 1],
                steady_minutes: 2,
                steady: [2, 500],
                long_lane: 10_000,
                requests: 40,
                controls: 5,
                driven: 5_000,
                peers: 200,
                probed: 200,
                spawned: 4,
                picked_up: 3,
                load: 100,
                called: [40, 40],
                idle_seconds: 3,
                only,
            },
            Some(other) => bail!("BENCH_SCALE={other}: it is short, default or full"),
        })
    }

    /// Whether its figures mean anything.
    pub fn is_short(&self) -> bool {
        self.name == "short"
    }

    /// Whether a phase was asked for by its name.
    pub fn names(&self, phase: &str) -> bool {
        self.only.is_some() && self.wants(phase)
    }

    /// Whether a phase is to run.
    pub fn wants(&self, phase: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == phase))
    }
}
