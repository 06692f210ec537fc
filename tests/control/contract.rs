//! The contract's table of what may be done when, as it is written, and what its cells mean.

use runlane::domain::run::Permission;
use runlane::domain::{RunAction, RunStatus};

const TABLE: &str = "
| | PENDING | RUNNING | PAUSED | COMPLETED | FAILED | CANCELLED |
|---|---|---|---|---|---|---|
| pauseRun | PAUSED | PAUSED | error | error | error | error |
| resumeRun | error | error | RUNNING | error | error | error |
| cancelRun | CANCELLED | CANCELLED | CANCELLED | error | error | unchanged (IMMEDIATE after GRACEFUL still kills) |
| setRunPriority | yes | yes | yes | error | error | error |
| retryFailedJobs | error | yes | yes, stays PAUSED | RUNNING | RUNNING | error |
| startAnalysis | error | yes | yes | yes | yes | yes |
";

/// One cell of the table.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The mutation.
    pub mutation: &'static str,
    /// The status before.
    pub status: RunStatus,
    /// The status after; none: refused.
    pub after: Option<RunStatus>,
    /// Whether nothing at all may change.
    pub unchanged: bool,
}

/// All cells, row by row.
pub fn cells() -> Vec<Cell> {
    let row = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut lines = TABLE.trim().lines().map(row);
    let statuses: Vec<RunStatus> =
        lines.next().expect("a head")[1..].iter().map(|s| s.parse().expect("a status")).collect();
    lines
        .skip(1)
        .flat_map(|row| {
            assert_eq!(row.len(), statuses.len() + 1, "{row:?}");
            let of = |(text, &status): (&&'static str, _)| {
                let word = text.split([' ', ',']).next().expect("a word");
                let after = match word {
                    "error" => None,
                    "yes" | "unchanged" => Some(status),
                    word => Some(word.parse().expect("a status")),
                };
                Cell { mutation: row[0], status, after, unchanged: word == "unchanged" }
            };
            row[1..].iter().zip(&statuses).map(of).collect::<Vec<_>>()
        })
        .collect()
}

/// The action that a mutation is.
pub fn action(mutation: &str) -> RunAction {
    match mutation {
        "pauseRun" => RunAction::Pause,
        "resumeRun" => RunAction::Resume,
        "cancelRun" => RunAction::Cancel,
        "setRunPriority" => RunAction::SetPriority,
        "retryFailedJobs" => RunAction::RetryFailed,
        "startAnalysis" => RunAction::StartAnalysis,
        other => panic!("{other} is no action on a run"),
    }
}

#[test]
fn the_table_of_permissions_is_the_contracts() {
    let cells = cells();
    // Deleting and setting a budget are additions to it.
    assert_eq!(cells.len(), RunStatus::ALL.len() * (RunAction::ALL.len() - 2));
    for Cell { mutation, status, after, .. } in cells {
        let expected = match after {
            None => Permission::Refused,
            Some(after) if after == status => Permission::Stays,
            Some(after) => Permission::Becomes(after),
        };
        let actual = status.permission(action(mutation));
        assert_eq!(actual, expected, "{mutation} on a {status} run");
    }
}
