//! What commands print at once.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Prints this text and a line's end. Who stops reading, as `head` does, has seen enough.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print the answer"),
        _ => Ok(()),
    }
}
