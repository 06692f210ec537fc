//! The record of who did what: each act once, with what it changed, and nothing of what did not happen.

mod acts;
mod history;
mod silence;
mod support;
mod system;
