//! The queue's promises, one test each: over the real server, real PostgreSQL and real Python.

mod completion;
mod durable;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fencing;
mod first_claim;
mod live_mark;
mod logs;
mod only_lane;
mod order;
mod process;
mod progress;
mod quanta;
mod refused;
mod retries;
pub mod support;
mod wakeup;
mod workers;
mod writing;
