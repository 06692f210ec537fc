//! Jobs that give up, and jobs that kill their workers.

use serde_json::json;

use super::operator::Operator;
use super::trouble::Trouble;
use crate::queue::support::{Node, quick, until_sql};
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

#[tokio::test(flavor = "multi_thread")]
async fn provider_down() {
    let trouble = Trouble::begin(&["lasts"]);
    // Long enough for a person, or a test, to pause the run between two tries.
    let settings = [trouble.python(), ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "3000")];
    let cluster = Cluster::with(&settings).await;
    let unknown = cluster.run(&cluster.definition(2).await, &["mock/echo?trouble=auth"], json!({})).await;
    cluster.until_status(&unknown, "COMPLETED").await;
    let run = cluster.run(&cluster.definition(4).await, &["mock/echo?trouble=down"], json!({})).await;
    until_sql(
        &cluster.db,
        "tried",
        "select count(*) = 4 from current_job where state = 'pending' and failures > 0",
    )
    .await;

    let mut operator = Operator::at("provider-down.md", &cluster.url, cluster.address).await;
    operator.is_told("RUN", &run).await;
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
async fn saturated_lane() {
    let trouble = Trouble::begin(&["lasts"]);
    let cluster = Cluster::with(&[trouble.python(), ("RUNLANE_WORKER_CONCURRENCY", "4")]).await;
    let slow = "mock/echo?trouble=slow";
    let narrow = json!({ "name": "narrow", "maxConcurrency": 2 });
    let narrow = cluster.run(&cluster.definition(5).await, &[slow], narrow).await;
    cluster.until(&narrow, "at its limit", |s| s["progress"]["active"] == 2).await;
    let bulk = cluster.run(&cluster.definition(6).await, &[slow], json!({ "name": "bulk" })).await;
    cluster.until(&bulk, "in all other slots", |s| s["progress"]["active"] == 2).await;
    let urgent = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({ "name": "urgent" })).await;

    let mut operator = Operator::at("saturated-lane.md", &cluster.url, cluster.address).await;
    operator.is_told("RUN", &urgent).await;
    let mut node = None;
    operator
        .follow(async |act| match act {
            "start another node" => node = Some(Node::start(&cluster, "work", &[])),
            "the models answer" => trouble.end("lasts"),
            other => panic!("{other}?"),
        })
        .await;
    operator.finds_all_well().await;
    drop(node);
    cluster.stop().await;
}
