//! The HTTP edge over real TCP, with a schema made for the tests.
#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod audit;
mod browser;
mod errors;
pub(crate) mod observability;
mod origins;
mod probes;
mod protocol;
mod serving;
mod support;
