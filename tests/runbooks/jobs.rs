//! Jobs that give up, and jobs that kill their workers.

use serde_json::json;

use super::operator::Operator;
use super::trouble::Trouble;
use crate::queue::support::{quick, until_sql};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_spike() {
    let trouble = Trouble::begin(&["lasts"]);
    let settings = [trouble.python(), ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "1")];
    let cluster = Cluster::with(&quick(&settings)).await;
    for (jobs, model) in [(6, "mock/echo?trouble=down"), (1, "mock/echo?fail=validation")] {
        let run = cluster.run(&cluster.definition(jobs).await, &[model], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
    }

    let mut operator = Operator::at("dead-letter-spike.md", &cluster.url, cluster.address).await;
    operator
        .follow(async |act| match act {
            "the provider is back" => trouble.end("lasts"),
            other => panic!("{other}?"),
        })
        .await;
    operator.finds_all_well().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_loop() {
    let trouble = Trouble::begin(&["lasts"]);
    let settings = [
        trouble.python(),
        ("RUNLANE_CRASH_HOLD_JOBS", "3"),
        // One at a time, so that it is held at the third crash.
        ("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "1"),
    ];
    let cluster = Cluster::with(&quick(&settings)).await;
    let alone = cluster.run(&cluster.definition(1).await, &["mock/echo?trouble=crash"], json!({})).await;
    cluster.until_status(&alone, "COMPLETED").await;
    cluster.run(&cluster.definition(8).await, &["mock/echo?trouble=crash"], json!({})).await;
    until_sql(&cluster.db, "held", "select exists (select from lane where held_at is not null)").await;

    let mut operator = Operator::at("crash-loop.md", &cluster.url, cluster.address).await;
    operator
        .follow(async |act| match act {
            "mend it" => trouble.end("lasts"),
            other => panic!("{other}?"),
        })
        .await;
    operator.finds_all_well().await;
    cluster.stop().await;
}
