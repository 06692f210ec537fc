//! Runlane: a run-control server for model evaluations.
//!
//! `docs/architecture.md` has the bird's-eye view; dependencies point downward:
//! `graphql`, `http` → `service` → `store`; `orchestrator` → `store`, `executor`; all → `domain`.

pub mod config;
pub mod domain;
pub mod embedded;
pub mod process;
