//! Runlane: a run-control server for model evaluations.
//!
//! `docs/architecture.md` has the bird's-eye view; dependencies point downward:
//! `graphql`, `http` → `service` → `store`; `orchestrator` → `store`, `executor`; all → `domain`.

pub mod auth;
pub mod config;
pub mod domain;
pub mod graphql;
pub mod http;
pub mod process;
pub mod service;
pub mod store;
