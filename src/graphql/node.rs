//! Nodes.

use async_graphql::{Enum, ID, SimpleObject};
use chrono::{DateTime, Utc};

use crate::domain::node;

/// Where a node stands.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "node::NodeState")]
pub(super) enum NodeState {
    /// It claims and runs jobs.
    Active,
    /// An admin drained it: it finishes what it runs, claims nothing, and stays.
    Draining,
    /// Its process ends.
    Stopping,
    /// Its lease has run out: its jobs go back to the queue within seconds.
    Lost,
}

/// One running process that executes jobs.
#[derive(SimpleObject)]
pub(super) struct Node {
    /// Until it loses its lease; then it registers under a new one.
    id: ID,
    /// Host and process id.
    name: String,
    /// The program's version.
    version: String,
    /// When it registered.
    started_at: DateTime<Utc>,
    /// Whether it executes jobs.
    executes: bool,
    /// How busy it is, by type of job, as of its last heartbeat.
    slots: Vec<NodeSlots>,
    /// The jobs that the queue counts as running on it now.
    claims: i64,
    /// Milliseconds since its last heartbeat.
    heartbeat_age_ms: i64,
    /// Its jobs go back to the queue if there is no heartbeat before.
    lease_until: DateTime<Utc>,
    /// Heartbeats that failed since it registered.
    failed_renewals: i64,
    /// Results that came after their claim was gone, and changed nothing, since it registered.
    late_results: i64,
    /// Whether it claims nothing more.
    is_draining: bool,
    /// Where it stands.
    state: NodeState,
}

/// How busy a node is with one type of job.
#[derive(SimpleObject)]
pub(super) struct NodeSlots {
    /// `probe:scenario`, `analyze:basic` or `analyze:deep`.
    #[graphql(name = "type")]
    kind: &'static str,
    /// So many it can run at once.
    slots: i64,
    /// So many it runs.
    active: i64,
}

impl From<node::Node> for Node {
    fn from(node: node::Node) -> Self {
        let slots =
            |s: &node::NodeSlots| NodeSlots { kind: s.kind.as_str(), slots: s.slots, active: s.active };
        Self {
            id: node.id.into(),
            slots: node.slots.iter().map(slots).collect(),
            name: node.name,
            version: node.version,
            started_at: node.started_at,
            executes: node.executes,
            claims: node.claims,
            heartbeat_age_ms: node.heartbeat_age_ms,
            lease_until: node.lease_until,
            failed_renewals: node.failed_renewals,
            late_results: node.late_results,
            is_draining: node.is_draining,
            state: node.state.into(),
        }
    }
}
