//! How much is measured.

use anyhow::{bail, ensure};

/// The phases in their order.
const PHASES: [&str; 9] =
    ["start", "reads", "control", "throughput", "archive", "python", "limits", "node", "idle"];

/// The numbers of one run of the benches.
pub struct Scale {
    /// `short` or `default`.
    pub name: &'static str,
    /// Repeats whose median counts.
    pub rounds: usize,
    /// Jobs of the runs that are started.
    pub started: [u64; 3],
    /// Jobs in the database while reads and controls are timed.
    pub stored: i32,
    /// Requests whose latencies make the percentiles.
    pub requests: usize,
    /// Times that each control is timed; cancels a fifth of it.
    pub controls: usize,
    /// Jobs that are claimed and completed without Python.
    pub driven: i32,
    /// Jobs that Python runs.
    pub probed: u64,
    /// Jobs that are started one at a time on an idle queue.
    pub picked_up: usize,
    /// Probes that call a provider with a ceiling: of calls a minute, and of calls at once.
    pub called: [u64; 2],
    /// How long the idle node is watched.
    pub idle_seconds: u64,
    only: Option<Vec<String>>,
}

impl Scale {
    /// What `BENCH_SCALE` and `BENCH_ONLY` ask for.
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
        Ok(match given("BENCH_SCALE").as_deref() {
            None | Some("default") => Self {
                name: "default",
                rounds: 3,
                started: [1_000, 10_000, 100_000],
                stored: 1_000_000,
                requests: 1_000,
                controls: 25,
                driven: 60_000,
                probed: 4_000,
                picked_up: 100,
                called: [1_200, 1_200],
                idle_seconds: 10,
                only,
            },
            Some("short") => Self {
                name: "short",
                rounds: 1,
                started: [100, 1_000, 2_000],
                stored: 20_000,
                requests: 40,
                controls: 5,
                driven: 5_000,
                probed: 200,
                picked_up: 3,
                called: [40, 40],
                idle_seconds: 3,
                only,
            },
            Some(other) => bail!("BENCH_SCALE={other}: it is short or default"),
        })
    }

    /// Whether a phase is to run.
    pub fn wants(&self, phase: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == phase))
    }
}
