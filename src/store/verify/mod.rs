//! The invariant checker: reads one snapshot of the database and reports everything that is not as it must be.
//!
//! A check is a file in `sql/` that returns a row (subject, detail) for each violation, and a line in [`CHECKS`]. Checks are
//! set-based, and what they find is streamed, so neither a large database nor one that is broken everywhere is held in memory.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::PgConnection;

use super::{Result, Store};
use crate::domain::RunStatus;
use crate::domain::verify::{Expectations, Rule, Verified, Violation};

/// One row of a check.
struct Found {
    subject: String,
    detail: String,
}

struct Check {
    rule: Rule,
    find: for<'c> fn(&'c mut PgConnection, &'c Expectations) -> BoxStream<'c, sqlx::Result<Found>>,
}

/// A check: invariant, name, file, what must hold, and what its query is told.
macro_rules! check {
    ($invariant:literal, $check:literal, $file:literal, $rule:literal) => {
        check!($invariant, $check, $file, $rule, |_expected|)
    };
    ($invariant:literal, $check:literal, $file:literal, $rule:literal, |$expected:ident| $($argument:expr),*) => {
        Check {
            rule: Rule { check: $check, invariant: $invariant, rule: $rule },
            find: |connection, $expected| sqlx::query_file_as!(Found, $file, $($argument),*).fetch(connection),
        }
    };
}

/// Every rule, in the order in which they are checked.
const CHECKS: &[Check] = &[
    check!(
        "I1",
        "run_missing",
        "src/store/verify/sql/run_missing.sql",
        "every run whose id was given out exists",
        |expected| &expected.runs
    ),
    check!(
        "I1",
        "run_incomplete",
        "src/store/verify/sql/run_incomplete.sql",
        "a run has all of its lanes, of the same size"
    ),
    check!(
        "I2",
        "job_unfinished",
        "src/store/verify/sql/job_unfinished.sql",
        "at rest no job waits or runs",
        |expected| expected.quiescent
    ),
    check!(
        "I2",
        "run_unfinished",
        "src/store/verify/sql/run_unfinished.sql",
        "at rest every run is final",
        |expected| expected.quiescent
    ),
    check!(
        "I3",
        "terminal_attempts",
        "src/store/verify/sql/terminal_attempts.sql",
        "an epoch of a job ends once"
    ),
    check!(
        "I3",
        "dead_letters",
        "src/store/verify/sql/dead_letters.sql",
        "what gave up, and nothing else, has a dead letter"
    ),
    check!(
        "I4",
        "attempt_numbers",
        "src/store/verify/sql/attempt_numbers.sql",
        "attempts are numbered from 1 to the number of claims, without a gap"
    ),
    check!(
        "I4",
        "attempt_path",
        "src/store/verify/sql/attempt_path.sql",
        "a job's outcomes are a path to the state that it is in"
    ),
    check!(
        "I4",
        "run_path",
        "src/store/verify/sql/run_path.sql",
        "a run's audited transitions are a path to the status that it is in",
        |_expected| &run_transitions(|(from, _)| from),
        &run_transitions(|(_, to)| to)
    ),
    check!(
        "I5",
        "lane_counters",
        "src/store/verify/sql/lane_counters.sql",
        "a lane's counters are the sums over its jobs"
    ),
    check!(
        "I5",
        "lane_errors",
        "src/store/verify/sql/lane_errors.sql",
        "a lane's failures by error code are those of its jobs"
    ),
    check!(
        "I5",
        "lane_cost",
        "src/store/verify/sql/lane_cost.sql",
        "a lane's cost is the sum over its transcripts and its other attempts"
    ),
    check!("I5", "run_status", "src/store/verify/sql/run_status.sql", "a run's status agrees with its lanes"),
    check!(
        "I5",
        "job_counters",
        "src/store/verify/sql/job_counters.sql",
        "a job's failures, losses and throttles are the attempts of its epoch"
    ),
    check!(
        "I6",
        "transcript_current",
        "src/store/verify/sql/transcript_current.sql",
        "a transcript was written by the attempt that completed its job"
    ),
    check!(
        "I6",
        "analysis_current",
        "src/store/verify/sql/analysis_current.sql",
        "an analysis's result was written by the attempt that completed its job"
    ),
    check!(
        "I6",
        "result_missing",
        "src/store/verify/sql/result_missing.sql",
        "what completed has its result"
    ),
    check!(
        "I7",
        "attempts_overlap",
        "src/store/verify/sql/attempts_overlap.sql",
        "no two attempts of a job overlap"
    ),
    check!(
        "I7",
        "active_without_node",
        "src/store/verify/sql/active_without_node.sql",
        "what is active is held by a registered node, and taken from one whose lease ran out",
        |expected| i64::try_from(expected.rescued_within.as_millis()).unwrap_or(i64::MAX)
    ),
    check!(
        "I9",
        "claim_while_queue_paused",
        "src/store/verify/sql/claim_while_queue_paused.sql",
        "nothing is claimed while the queue is paused"
    ),
    check!(
        "I9",
        "claim_while_run_paused",
        "src/store/verify/sql/claim_while_run_paused.sql",
        "nothing of a run is claimed while it is paused"
    ),
    check!(
        "I9",
        "claim_in_closed_lane",
        "src/store/verify/sql/claim_in_closed_lane.sql",
        "nothing of a cancelled run is claimed"
    ),
    check!(
        "I9",
        "claim_in_held_lane",
        "src/store/verify/sql/claim_in_held_lane.sql",
        "nothing is claimed in a lane that is held"
    ),
    check!(
        "rows",
        "lane_settled",
        "src/store/verify/sql/lane_settled.sql",
        "a settled lane has no rows left to be rewritten"
    ),
    check!(
        "rows",
        "job_found",
        "src/store/verify/sql/job_found.sql",
        "what waits, runs, failed or was cancelled is found by its state"
    ),
    check!("rows", "rows_dangling", "src/store/verify/sql/rows_dangling.sql", "what a row refers to exists"),
];

/// One end of each transition that a run can make.
fn run_transitions(end: fn((RunStatus, RunStatus)) -> RunStatus) -> Vec<String> {
    RunStatus::transitions().into_iter().map(|t| end(t).as_str().to_owned()).collect()
}

/// Every rule, in the order in which they are checked.
pub fn rules() -> impl Iterator<Item = Rule> {
    CHECKS.iter().map(|check| check.rule)
}

impl Store {
    /// Checks every rule on one snapshot, and tells `report` of each violation as it is found.
    ///
    /// Reads only. The snapshot is held for as long as it takes, so a pool whose statements may take long is needed.
    ///
    /// # Errors
    /// The database's; what was reported until then holds all the same.
    pub async fn verify(
        &self,
        expected: &Expectations,
        mut report: impl FnMut(Violation) + Send,
    ) -> Result<Verified> {
        let mut snapshot =
            self.pool.pool.begin_with("begin isolation level repeatable read read only").await?;
        let counts = sqlx::query!(
            r#"select (select count(*) from run) as "runs!", (select count(*) from any_job) as "jobs!",
                      (select count(*) from any_attempt) as "attempts!""#
        )
        .fetch_one(&mut *snapshot)
        .await?;
        let mut verified = Verified {
            runs: counts.runs,
            jobs: counts.jobs,
            attempts: counts.attempts,
            ..Verified::default()
        };
        for Check { rule, find } in CHECKS {
            let mut found = find(&mut snapshot, expected);
            while let Some(Found { subject, detail }) = found.try_next().await? {
                verified.violations += 1;
                report(Violation { check: rule.check, invariant: rule.invariant, subject, detail });
            }
            verified.checks += 1;
        }
        snapshot.rollback().await?;
        Ok(verified)
    }
}
