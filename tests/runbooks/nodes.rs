//! Nodes that are drained, and nodes that are not there.

use nix::sys::signal::Signal;
use serde_json::json;

use super::operator::Operator;
use super::trouble::Trouble;
use crate::queue::support::Node;
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn drain_a_node() {
    let trouble = Trouble::begin(&["short", "long"]);
    let cluster = Cluster::api_only(&[trouble.python(), ("RUNLANE_POLL_INTERVAL_MS", "200")]).await;
    let leaving = Node::start(&cluster, "work", &[("RUNLANE_SHUTDOWN_GRACE_MS", "60000")]);
    let definition = cluster.definition(1).await;
    let models = ["mock/echo?trouble=slow&while=short", "mock/echo?trouble=slow&while=long"];
    let run = cluster.run(&definition, &models, json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    let staying = Node::start(&cluster, "work", &[]);

    let mut operator = Operator::at("drain-a-node.md", &cluster.url, cluster.address).await;
    let mut leaving = Some(leaving);
    operator
        .follow(async |act| match act {
            "let the short job end" => trouble.end("short"),
            "let the long job end" => trouble.end("long"),
            "stop the process" => {
                let node = leaving.take().unwrap();
                node.signal(Signal::SIGTERM);
                assert!(node.wait().0.success());
            }
            other => panic!("{other}?"),
        })
        .await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 2);
    operator.finds_all_well().await;
    drop(staying);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_run() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({ "name": "nightly" })).await;
    cluster.user("mutation($id: ID!) { pauseRun(id: $id) { id } }", json!({ "id": run })).await.data();
    cluster.run(&cluster.definition(2).await, &["mock/rater"], json!({})).await;
    sqlx::query("update job set run_at = run_at - interval '2 h' where lane_id = (select max(id) from lane)")
        .execute(&cluster.db)
        .await
        .unwrap();

    let mut operator = Operator::at("stuck-run.md", &cluster.url, cluster.address).await;
    operator.is_told("RUN", &run).await;
    let mut node = None;
    operator
        .follow(async |act| match act {
            "start a node" => node = Some(Node::start(&cluster, "work", &[])),
            other => panic!("{other}?"),
        })
        .await;
    operator.finds_all_well().await;
    drop(node);
    cluster.stop().await;
}
