//! What runs cost, what they may cost, and what stops them.

mod budget;
mod cost;
mod estimate;
mod failures;
mod prices;
mod spend;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// How many probes two nodes are given that ask for eight each, the second while the first one's claim is not committed:
/// the first of `mock`, the second of `openai`, so that no lane is asked for by both.
pub async fn claimed_together(direct: &Direct) -> (i64, i64) {
    const CLAIM: &str = "select count(*) from claim_jobs($1, '{probe:scenario}', array[8], array[$2]) where job_id is not null";
    const WAITS: &str = "select exists (select from pg_stat_activity a
                                         where a.datname = current_database() and a.wait_event_type = 'Lock')";
    let (first_node, second_node) = (direct.node().await, direct.node().await);
    let mut first = direct.db.begin().await.unwrap();
    let one: i64 =
        sqlx::query_scalar(CLAIM).bind(first_node).bind("mock").fetch_one(&mut *first).await.unwrap();
    let is_done = AtomicBool::new(false);
    let second = async {
        let n: i64 =
            sqlx::query_scalar(CLAIM).bind(second_node).bind("openai").fetch_one(&direct.db).await.unwrap();
        is_done.store(true, Ordering::Relaxed);
        n
    };
    let commit = async {
        // It waits for the first one, or it need not.
        while !is_done.load(Ordering::Relaxed)
            && !sqlx::query_scalar::<_, bool>(WAITS).fetch_one(&direct.db).await.unwrap()
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        first.commit().await.unwrap();
    };
    let (two, ()) = tokio::join!(second, commit);
    (one, two)
}
