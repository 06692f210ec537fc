//! Runlane: a run-control server for model evaluations.
//!
//! `docs/architecture.md` has the bird's-eye view; dependencies point downward:
//! `graphql`, `http` → `service` → `store`; `orchestrator` → `store`, `executor`; all → `domain`.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod executor;
pub mod export;
pub mod graphql;
pub mod http;
pub mod orchestrator;
pub mod process;
pub mod service;
pub mod store;
pub mod telemetry;
