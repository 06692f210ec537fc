//! Dead letters: what gives up is kept, resolved by people and redriven, with exact progress throughout.

mod burial;
mod operators;
mod redrive;
mod resolution;
mod support;
