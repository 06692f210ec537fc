//! The peers: what runs each, and how to count its jobs.

use super::process::Program;

/// A queue that is measured.
pub struct Peer {
    /// As the table names it.
    pub name: &'static str,
    /// What runs it.
    pub program: Program,
    /// A name and a value of the environment.
    pub setting: Option<(&'static str, &'static str)>,
    /// Of so many jobs it gets one.
    pub slower: u64,
    /// Where its jobs are.
    pub jobs: Jobs,
}

/// Where a peer has its jobs.
pub enum Jobs {
    /// In the database: how many are not done, and how many are kept although they are.
    Database { open: &'static str, kept: Option<&'static str> },
    /// In a Redis that syncs its file so often.
    Redis(&'static str),
}

impl Peer {
    /// Whether jobs that are done can still be read.
    pub const fn keeps(&self) -> bool {
        !matches!(self.jobs, Jobs::Database { kept: None, .. })
    }
}

const GRAPHILE: Jobs =
    Jobs::Database { open: "select count(*) from graphile_worker._private_jobs", kept: None };

/// In the order of the table.
pub const PEERS: [Peer; 8] = [
    Peer {
        name: "graphile_worker (Rust)",
        program: Program::Rust("graphile_worker"),
        setting: None,
        slower: 1,
        jobs: GRAPHILE,
    },
    Peer {
        name: "graphile-worker (Node.js)",
        program: Program::Node("graphile-worker.mjs"),
        setting: None,
        slower: 1,
        jobs: GRAPHILE,
    },
    Peer {
        name: "pg-boss",
        program: Program::Node("pg-boss.mjs"),
        setting: None,
        slower: 1,
        jobs: Jobs::Database {
            open: "select count(*) from pgboss.job where name = 'bench' and state <> 'completed'",
            kept: Some("select count(*) from pgboss.job where name = 'bench' and state = 'completed'"),
        },
    },
    Peer {
        name: "apalis-postgres",
        program: Program::Rust("apalis"),
        setting: None,
        slower: 1,
        jobs: Jobs::Database {
            open: "select count(*) from apalis.jobs where status <> 'Done'",
            kept: Some("select count(*) from apalis.jobs where status = 'Done'"),
        },
    },
    Peer {
        name: "awa",
        program: Program::Rust("awa"),
        setting: Some(("AWA_COMPLETION_BATCH_SIZE", "512")),
        slower: 1,
        // Its ring of segments forgets what is done within seconds, a segment's jobs and their ends together.
        jobs: Jobs::Database {
            open: "select (select count(*) from awa.ready_entries)
                        - (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)
                        - (select count(*) from awa.done_entries where state = 'completed')",
            kept: None,
        },
    },
    Peer {
        name: "procrastinate",
        program: Program::Python("procrastinate_peer.py"),
        setting: None,
        slower: 10,
        jobs: Jobs::Database {
            open: "select count(*) from procrastinate_jobs where status <> 'succeeded'",
            kept: Some("select count(*) from procrastinate_jobs where status = 'succeeded'"),
        },
    },
    Peer {
        name: "BullMQ, Redis syncs every second",
        program: Program::Node("bullmq.mjs"),
        setting: None,
        slower: 1,
        jobs: Jobs::Redis("everysec"),
    },
    Peer {
        name: "BullMQ, Redis syncs every write",
        program: Program::Node("bullmq.mjs"),
        setting: None,
        slower: 1,
        jobs: Jobs::Redis("always"),
    },
];
