//! The settings that each kind of job has.

use std::time::Duration;

use super::numbers::Numbers;
use super::source::Source;
use crate::domain::JobKind;
use crate::domain::backoff::Backoff;

/// What holds for one kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindPolicy {
    /// Jobs of the kind that this node runs at once.
    pub concurrency: u32,
    /// Counted failures after which a job is not tried again: it fails at failure number `retry_limit` + 1.
    pub retry_limit: i16,
    /// The wait between counted failures.
    pub backoff: Backoff,
    /// How long an attempt may take unless the run says otherwise.
    pub timeout: Duration,
    /// How long a job may wait for throttling in total before it fails.
    pub throttle_max: Duration,
    /// A job that waits longer for its first attempt is stale.
    pub stale_waiting_ms: i64,
    /// A job that waits longer for another attempt is stale.
    pub stale_retry_ms: i64,
    /// An attempt that takes longer is stale.
    pub stale_in_process_ms: i64,
}

/// A year.
const YEAR_MS: i128 = 31_536_000_000;
/// What may wait for an hour, and what may take half of one.
const STALE_DEFAULTS_MS: [Option<i128>; 3] = [Some(3_600_000), Some(3_600_000), Some(1_800_000)];

/// The settings that each kind of job has: (stem, minimum, maximum, meaning).
pub(super) const KIND_SETTINGS: [(&str, i128, i128, &str); 9] = [
    ("RUNLANE_WORKER_CONCURRENCY", 1, 10_000, "Jobs of this kind that this node runs at once."),
    ("RUNLANE_RETRY_LIMIT", 0, 100, "Counted failures that are followed by another attempt."),
    (
        "RUNLANE_RETRY_BASE_MS",
        1,
        3_600_000,
        "After the n-th counted failure a job waits between d/2 and d, d = base × 2^n.",
    ),
    ("RUNLANE_RETRY_MAX_MS", 1, 86_400_000, "No such wait is longer."),
    ("RUNLANE_TIMEOUT_SECONDS", 1, 86_400, "How long an attempt may take unless the run says otherwise."),
    (
        "RUNLANE_THROTTLE_MAX_SECONDS",
        1,
        31_536_000,
        "How long a job may wait for throttling in total before it fails.",
    ),
    ("RUNLANE_STALE_WAITING_MS", 1, YEAR_MS, "A job that waits longer for its first attempt is stale."),
    ("RUNLANE_STALE_RETRY_MS", 1, YEAR_MS, "A job that waits longer for another attempt is stale."),
    ("RUNLANE_STALE_IN_PROCESS_MS", 1, YEAR_MS, "An attempt that takes longer is stale."),
];

/// The defaults of [`KIND_SETTINGS`] for one kind; `None` stands for the general number.
pub(super) const fn kind_defaults(kind: JobKind) -> [Option<i128>; KIND_SETTINGS.len()] {
    let [waiting, retry, in_process] = STALE_DEFAULTS_MS;
    let (concurrency, timeout_s) = match kind {
        JobKind::ProbeScenario => (None, 120),
        JobKind::AnalyzeBasic => (Some(2), 300),
        JobKind::AnalyzeDeep => (Some(1), 900),
    };
    [
        concurrency,
        Some(3),
        Some(5_000),
        Some(300_000),
        Some(timeout_s),
        Some(86_400),
        waiting,
        retry,
        in_process,
    ]
}

pub(super) fn kind_policy(source: &mut Source<'_>, kind: JobKind, numbers: &Numbers) -> KindPolicy {
    let defaults = kind_defaults(kind);
    let mut values = [0_i128; KIND_SETTINGS.len()];
    for (i, (stem, min, max, _)) in KIND_SETTINGS.iter().enumerate() {
        let variable = format!("{stem}_{}", kind.env_suffix());
        let default = defaults[i].unwrap_or(i128::from(numbers.worker_concurrency));
        values[i] = source.number(&variable, default, *min, *max);
    }
    let [
        concurrency,
        retry_limit,
        base_ms,
        max_ms,
        timeout_s,
        throttle_s,
        waiting_ms,
        retry_ms,
        in_process_ms,
    ] = values;
    KindPolicy {
        concurrency: concurrency as u32,
        retry_limit: retry_limit as i16,
        backoff: Backoff {
            base: Duration::from_millis(base_ms as u64),
            max: Duration::from_millis(max_ms as u64),
        },
        timeout: Duration::from_secs(timeout_s as u64),
        throttle_max: Duration::from_secs(throttle_s as u64),
        stale_waiting_ms: waiting_ms as i64,
        stale_retry_ms: retry_ms as i64,
        stale_in_process_ms: in_process_ms as i64,
    }
}
