//! The program as people run it: the real binary, its output, its exit code, and what it leaves behind.

mod demo;
mod dev;
mod doctor;
mod outage;
pub mod process;
mod queue;
mod refusals;
mod restored;
mod roles;
mod token;
mod tools;
