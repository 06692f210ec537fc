//! What only one node at a time may do.

use super::text_enum::text_enum;

text_enum! {
    /// Something that only one node at a time does; each duty has a leader of its own.
    Duty {
        /// Looks for stale jobs and runs, and acts on them.
        Staleness = "staleness",
        /// Archives, purges and tidies up.
        Maintenance = "maintenance",
    }
}

/// One node's time as the leader. Whatever it writes names its term: once another has begun, such a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// In what it leads.
    pub duty: Duty,
    /// Grows with every leader of the duty, and is never used twice.
    pub epoch: i64,
}
