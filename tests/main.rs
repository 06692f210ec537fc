//! The integration tests: the real server, real PostgreSQL, real Python.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod api;
mod archive;
mod audit;
mod cli;
mod control;
mod crashes;
mod deadletters;
mod embedded;
mod executor;
mod export;
mod http;
mod hygiene;
mod limits;
mod machine;
mod model;
mod money;
mod nodes;
mod providers;
mod queue;
mod quickstart;
mod reads;
mod runbooks;
mod staleness;
mod support;
mod tidy;
mod trouble;
mod verify;
