//! The executor with real processes: every rule of blame, every way to die.

mod crashes;
mod deadlines;
mod leftovers;
mod lifecycle;
mod limits;
mod stops;
mod support;
mod throughput;
mod warm;
