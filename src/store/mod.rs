//! All SQL lives here: one statement or one short transaction a function, no decisions.
//!
//! Rows become domain types on the way out; an unknown state is an error. The moves of the queue itself are functions in
//! the database (`schema/migrations/`), so that each is a single call and no lock is held while the network waits.

mod archive;
mod audit;
mod connections;
mod control;
mod crash;
mod dead_letters;
mod definitions;
mod deletion;
mod error;
mod estimates;
mod export;
mod figures;
mod heartbeat;
mod history;
mod holds;
mod jobs;
mod lanes;
mod leader;
mod listener;
mod migrate;
mod money;
mod node_acts;
mod nodes;
mod pool;
mod progress;
mod queue;
mod queue_pause;
mod queue_status;
mod rate_limits;
mod restore;
mod results;
mod retry;
mod runs;
mod scenarios;
mod server;
mod shelf;
mod spend;
mod staleness;
mod start;
mod temporary;
mod transaction;
mod verify;
mod waiting;
mod work;

pub use archive::{Archivable, ArchivePartition, PartitionContent};
pub use connections::Patience;
pub use control::{JobChange, JobHead, RunChange, RunHead};
pub use dead_letters::{EntryHead, NewResolution};
pub use definitions::{DefinitionInsert, ScenarioColumns};
pub use deletion::{DefinitionHead, Deleted, GoingOn};
pub use error::{Error, Result};
pub use estimates::{Capacity, PastRun, SharedLimit};
pub use export::ExportPage;
pub use heartbeat::{Beat, Heartbeat, Missed, Pulse};
pub use holds::Released;
pub use leader::Leadership;
pub use listener::{Listener, Notice};
pub use migrate::{MigrateError, migrate};
pub use money::BudgetSet;
pub use node_acts::{JobRelease, NodeChange};
pub use nodes::{NewNode, Rescued};
pub use pool::{PoolSettings, connect, reach};
pub use queue::{Claimed, FirstClaim, Interruption};
pub use restore::RestoredRun;
pub use scenarios::ScenarioKey;
pub use server::{Durability, OpenProblems, SchemaState, ServerFacts};
pub use staleness::Sweep;
pub use start::{Conditions, Inserted, RunInsert};
pub use temporary::TemporaryDatabase;
pub use verify::rules;
pub use waiting::{QueuePause, RunPause, ShutLimit, WaitingFacts};
pub use work::{Contexts, SharedWork};

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use crate::domain::Requester;
use connections::{Connections, Kept};

/// Access to the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Connections,
    /// In whose name transactions change things; none: the system's.
    actor: Option<Arc<Requester>>,
}

impl Store {
    /// A store over a pool made by [`connect`].
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool: Connections { pool, patience: Patience::default(), kept: None, reads_again: false },
            actor: None,
        }
    }

    /// The same store, with this patience.
    #[must_use]
    pub fn patient(mut self, patience: Patience) -> Self {
        self.pool.patience = patience;
        self
    }

    /// The same store, which waits no longer than this for an answer.
    #[must_use]
    pub fn answered_within(&self, limit: Duration) -> Self {
        let mut store = self.clone();
        store.pool.patience.answer = store.pool.patience.answer.min(limit);
        store
    }

    /// The same store, with connections of its own that it keeps at hand between statements. One that runs its statements one
    /// after another runs them all on the same.
    #[must_use]
    pub fn on_kept_connections(&self) -> Self {
        let mut store = self.clone();
        store.pool.kept = Some(Kept::default());
        store
    }

    /// The same store for those whose statements outside of transactions only read: they are run again when a connection that
    /// was kept turns out to be gone.
    #[must_use]
    pub fn reading_again(mut self) -> Self {
        self.pool.reads_again = true;
        self
    }

    /// The same store, whose transactions are recorded in this person's name.
    #[must_use]
    pub fn acting_for(&self, requester: &Requester) -> Self {
        Self { actor: Some(Arc::new(requester.clone())), ..self.clone() }
    }

    /// The pool, for figures about it.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool.pool
    }

    /// Connections that nobody uses just now.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.pool.pool.num_idle() + self.pool.kept.as_ref().map_or(0, Kept::idle)
    }

    /// Closes the pool; returns when all of its connections are closed.
    pub async fn close(&self) {
        if let Some(kept) = &self.pool.kept {
            kept.close();
        }
        self.pool.pool.close().await;
    }
}

impl Store {
    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// The database's.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query!("select 1 as one").fetch_one(&self.pool).await?;
        Ok(())
    }
}
