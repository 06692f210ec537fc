//! The invariant checker: finds nothing in a database that has seen everything, and what is broken on purpose.

mod aged;
mod broken;
mod program;
