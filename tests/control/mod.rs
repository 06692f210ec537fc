//! What people do to runs, jobs and the queue: one test for each rule, over the real server.

mod analysis;
mod cancel;
mod contract;
pub(crate) mod guard;
mod jobs;
mod machines;
mod pause;
mod queue;
mod retry;
mod retry_batches;
mod revision;
mod roles;
mod states;
pub(crate) mod support;
mod tokens;
