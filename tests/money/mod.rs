//! What runs cost, what they may cost, and what stops them.

mod budget;
mod cost;
mod estimate;
mod failures;
mod prices;
mod spend;

use std::path::PathBuf;

use rust_decimal::Decimal;

use crate::support::app::Cluster;
use crate::support::direct::Direct;

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

/// Everything that the invariant checker finds in a cluster's database.
pub async fn violations(cluster: &Cluster) -> Vec<runlane::domain::verify::Violation> {
    Direct::on(&cluster.url).await.violations(false, &[]).await
}

/// A field with an amount of an answer.
pub fn amount(value: &serde_json::Value) -> Decimal {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse().unwrap()
}
