//! Nodes and their leases: over real processes, real PostgreSQL and real Python.

mod acts;
mod database;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fence;
mod lease;
mod relay;
