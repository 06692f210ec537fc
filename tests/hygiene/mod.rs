//! Poison: jobs that kill their workers, what it costs, and what stops it.

mod holds;
mod mixture;
mod poison;
