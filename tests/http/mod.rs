//! The HTTP edge over real TCP, with a schema made for the tests.

mod audit;
mod browser;
mod errors;
mod observability;
mod origins;
mod probes;
mod protocol;
mod serving;
mod support;
