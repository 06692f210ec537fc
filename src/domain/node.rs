//! Nodes as operators see them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::JobKind;
use super::text_enum::text_enum;

text_enum! {
    /// Where a node stands.
    NodeState {
        /// Claims and runs jobs.
        Active = "ACTIVE",
        /// An admin drained it: it finishes what it runs, claims nothing, and stays.
        Draining = "DRAINING",
        /// Its process ends.
        Stopping = "STOPPING",
        /// Its lease has run out: whoever looks next gives its jobs back.
        Lost = "LOST",
    }
}

/// One registered process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id, until it loses its lease.
    pub id: Uuid,
    /// Host and process id.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// When it registered.
    pub started_at: DateTime<Utc>,
    /// Whether it executes jobs.
    pub executes: bool,
    /// One entry a kind, as the node said with its last heartbeat.
    pub slots: Vec<NodeSlots>,
    /// The claims that the database holds for it now.
    pub claims: i64,
    /// Milliseconds since it renewed its lease.
    pub heartbeat_age_ms: i64,
    /// When its lease ends.
    pub lease_until: DateTime<Utc>,
    /// Renewals that failed since it registered.
    pub failed_renewals: i64,
    /// Results that came too late since it registered.
    pub late_results: i64,
    /// Whether it claims nothing more.
    pub is_draining: bool,
    /// Where it stands.
    pub state: NodeState,
}

/// How busy a node is with one kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSlots {
    /// Which.
    pub kind: JobKind,
    /// So many it can run at once.
    pub slots: i64,
    /// So many it runs.
    pub active: i64,
}

impl NodeState {
    /// What the marks of a node say together.
    #[must_use]
    pub const fn of(is_run_out: bool, is_stopping: bool, is_draining: bool) -> Self {
        match (is_run_out, is_stopping, is_draining) {
            (true, ..) => Self::Lost,
            (_, true, _) => Self::Stopping,
            (.., true) => Self::Draining,
            _ => Self::Active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_mark_of_a_node_is_its_state() {
        assert_eq!(NodeState::of(false, false, false), NodeState::Active);
        assert_eq!(NodeState::of(false, false, true), NodeState::Draining);
        assert_eq!(NodeState::of(false, true, true), NodeState::Stopping);
        assert_eq!(NodeState::of(true, true, true), NodeState::Lost);
    }
}
