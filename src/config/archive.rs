//! How long things are kept, and how often that is looked after.

use std::time::Duration;

use super::example::Setting;
use super::source::Source;
use crate::domain::JobState;

/// What maintenance does with what is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivePolicy {
    /// Whether finished jobs are archived, and the archive purged, by themselves.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
    /// Rows that one step moves or deletes at most.
    pub batch: i32,
    /// After a step, this many times its own length passes before the next.
    pub rest: u32,
    /// How long after a run's end its jobs stay hot.
    pub after: Duration,
    /// Days that archived jobs are kept, for each outcome in the order of [`ArchivePolicy::OUTCOMES`]; 0: for ever.
    pub keep_days: [u32; 3],
    /// How long what was deleted can be restored.
    pub delete_after: Duration,
}

impl ArchivePolicy {
    /// How archived jobs ended.
    pub const OUTCOMES: [JobState; 3] = [JobState::Completed, JobState::Failed, JobState::Cancelled];

    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let [interval, after, delete_after] =
            DURATIONS.map(|(variable, default, min, max, _)| source.duration(variable, default, min, max));
        let keep_days =
            KEEP_DAYS.map(|(variable, default, _)| source.number(variable, default, 0, KEEP_DAYS_MAX) as u32);
        Self {
            enabled: source.parsed("RUNLANE_ARCHIVE_ENABLED", true, "true or false"),
            interval,
            batch: source.number("RUNLANE_ARCHIVE_BATCH", BATCH, 1, BATCH_MAX) as i32,
            rest: source.number("RUNLANE_ARCHIVE_REST", REST, 0, REST_MAX) as u32,
            after,
            keep_days,
            delete_after,
        }
    }
}

const BATCH: i128 = 500;
const BATCH_MAX: i128 = 100_000;
/// So that fewer than one claim in a hundred meets a step. What is left is still some 8 million jobs a day.
const REST: i128 = 150;
const REST_MAX: i128 = 10_000;
const KEEP_DAYS_MAX: i128 = 36_500;

/// Variable, default, minimum, maximum, meaning.
const DURATIONS: [(&str, &str, &str, &str, &str); 3] = [
    ("RUNLANE_MAINTENANCE_INTERVAL", "60s", "50ms", "1d", "How often finished business is tidied up."),
    (
        "RUNLANE_ARCHIVE_AFTER",
        "24h",
        "0s",
        "3650d",
        "How long after a run's end its jobs stay in the hot tables.",
    ),
    (
        "RUNLANE_DELETE_AFTER",
        "7d",
        "0s",
        "3650d",
        "How long a deleted run or definition can be restored before it is gone for good.",
    ),
];

/// Variable, default, meaning.
const KEEP_DAYS: [(&str, i128, &str); 3] = [
    ("RUNLANE_RETENTION_DAYS_COMPLETED", 90, "Days that completed jobs stay in the archive; 0 for ever."),
    ("RUNLANE_RETENTION_DAYS_FAILED", 180, "Days that failed jobs stay in the archive; 0 for ever."),
    ("RUNLANE_RETENTION_DAYS_CANCELLED", 30, "Days that cancelled jobs stay in the archive; 0 for ever."),
];

pub(super) fn settings() -> Vec<Setting> {
    let mut all: Vec<Setting> = DURATIONS
        .iter()
        .map(|&(variable, default, min, max, doc)| Setting {
            variable,
            default: default.to_owned(),
            range: format!("{min} to {max}, with ms, s, m, h or d"),
            doc,
        })
        .collect();
    all.push(Setting {
        variable: "RUNLANE_ARCHIVE_ENABLED",
        default: "true".to_owned(),
        range: "true or false".to_owned(),
        doc: "Whether finished jobs are archived, and the archive is purged, by themselves.",
    });
    all.push(Setting {
        variable: "RUNLANE_ARCHIVE_BATCH",
        default: BATCH.to_string(),
        range: format!("1 to {BATCH_MAX}"),
        doc: "Rows that one step of the archive moves or deletes at most.",
    });
    all.push(Setting {
        variable: "RUNLANE_ARCHIVE_REST",
        default: REST.to_string(),
        range: format!("0 to {REST_MAX}"),
        doc: "Times the length of a step of the archive that pass before its next one: more of it leaves claims alone, less \
              archives faster.",
    });
    all.extend(KEEP_DAYS.iter().map(|&(variable, default, doc)| Setting {
        variable,
        default: default.to_string(),
        range: format!("0 to {KEEP_DAYS_MAX}"),
        doc,
    }));
    all
}
