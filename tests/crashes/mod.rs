//! A node dies, as by `kill -9`, before and after each commit that matters. Another takes over: everything ends, nothing is
//! lost, nothing counts twice.

mod acts;
mod queue;
mod support;

pub(crate) use support::asked;
