//! What runs cost, what they may cost, and what stops them.

mod cost;
mod prices;

use std::path::PathBuf;

/// A price table of this text, as a file of its own.
pub fn price_file(rows: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("prices-{}.toml", runlane::domain::ids::new_id()));
    let text = format!("asOf = \"2026-01-31\"\nsource = \"the test\"\n{rows}");
    std::fs::write(&path, text).expect("the tests' folder can be written");
    path
}

/// The mock's prices: so many dollars per million tokens, read and written.
pub fn mock_prices(input: &str, output: &str) -> PathBuf {
    price_file(&format!("[[price]]\nmodels = [\"mock/*\"]\ninput = \"{input}\"\noutput = \"{output}\"\n"))
}
