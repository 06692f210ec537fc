//! What the invariant checker is told and what it finds.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

/// What the database is compared with, besides with itself.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// Runs that somebody was told have started.
    pub runs: Vec<Uuid>,
    /// Whether everything should have ended: no run and no job may wait or run.
    pub quiescent: bool,
    /// Another node takes the jobs of a lease that ran out within this time.
    pub rescued_within: Duration,
}

/// A rule that the database must obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name, the same in every version.
    pub check: &'static str,
    /// The invariant that it watches over: I1 to I9 as docs/reliability.md has them, or `rows`.
    pub invariant: &'static str,
    /// What must hold.
    pub rule: &'static str,
}

/// Something that is not as its rule says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule's name.
    pub check: &'static str,
    /// The rule's invariant.
    pub invariant: &'static str,
    /// What violates it, such as `job 17`.
    pub subject: String,
    /// How.
    pub detail: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Rules.
    pub checks: u64,
    /// Runs in the snapshot.
    pub runs: i64,
    /// Jobs in the snapshot.
    pub jobs: i64,
    /// Attempts in the snapshot.
    pub attempts: i64,
    /// Violations found.
    pub violations: u64,
}
