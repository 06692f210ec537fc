//! What nodes do by themselves: claim, end, rescue, settle.

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{at_rest, cluster, died, doomed};
use crate::queue::support::{Node, attempts, jobs};
use crate::support::app::Cluster;

/// Twelve jobs, half of which fail once before they complete.
async fn twelve(cluster: &Cluster) -> String {
    let definition = cluster.definition(6).await;
    cluster.run(&definition, &["mock/echo", "mock/echo?failFirst=1"], json!({})).await
}

/// A node dies at its third time at `point`; another does the rest.
async fn the_rest_is_done(point: &str) {
    let mut cluster = cluster().await;
    let run = twelve(&cluster).await;
    let spec = format!("{point}=2*off->return");
    let node = Node::start(&cluster, "work", &[("FAILPOINTS", &spec)]);
    died(node, point).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    let jobs = jobs(&cluster.db, &run).await;
    let lost: i64 = jobs.iter().map(|j| i64::from(j.losses)).sum();
    let claims: i64 = jobs.iter().map(|j| i64::from(j.claims)).sum();
    // The worker fails a job's first attempt, so one that was lost then completes at its second.
    let failed: i64 = jobs.iter().map(|j| i64::from(j.failures)).sum();
    assert!(failed + lost >= 6 && failed <= 6, "{jobs:#?}");
    assert_eq!(claims, 12 + failed + lost, "nothing ran twice but what was lost: {jobs:#?}");
    assert!(jobs.iter().all(|j| j.losses_alone == 0), "nobody is blamed: {jobs:#?}");
    if point == "claim.after" {
        assert!(lost > 0, "what was claimed was lost: {jobs:#?}");
    }
    at_rest(cluster, &run, "COMPLETED", [0, 0, 12, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_claim() {
    the_rest_is_done("claim.before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_claim() {
    the_rest_is_done("claim.after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_ends_are_written() {
    the_rest_is_done("end.before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ends_are_written() {
    the_rest_is_done("end.after").await;
}

/// A node is killed at work, the next dies while it rescues the first one's jobs, and a third does everything.
async fn rescued_all_the_same(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(8).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=2000"], json!({})).await;
    let first = Node::start(&cluster, "work", &[]);
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    first.signal(Signal::SIGKILL);
    drop(first.wait());
    let node = doomed(&cluster, point);
    died(node, point).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    let attempts = attempts(&cluster.db).await;
    let lost = attempts.iter().filter(|a| a.outcome == "lost").count();
    assert!(lost >= 4, "the first node's four, and what the second had claimed: {attempts:#?}");
    let first = attempts.iter().find(|a| a.number == 1).unwrap().node_id;
    assert_eq!(attempts.iter().filter(|a| a.node_id == first).count(), 4, "each once: {attempts:#?}");
    assert_eq!(attempts.len(), 8 + lost);
    at_rest(cluster, &run, "COMPLETED", [0, 0, 8, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_rescue_commits() {
    rescued_all_the_same("rescue.before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rescue() {
    rescued_all_the_same("rescue.after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_rows_of_a_cancelled_run_are_rewritten() {
    let mut cluster = cluster().await;
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster
        .user("mutation($id: ID!) { cancelRun(id: $id, mode: GRACEFUL) { id } }", json!({ "id": run }))
        .await
        .data();
    let node = doomed(&cluster, "settle.before");
    died(node, "settle.before").await;
    let rows = "select count(*) from current_job where state = 'pending'";
    let waiting: i64 = sqlx::query_scalar(rows).fetch_one(&cluster.db).await.unwrap();
    assert!(waiting >= 5, "nothing was rewritten");
    cluster.add_node(&[]).await;
    crate::queue::support::until_sql(
        &cluster.db,
        "settled",
        "select bool_and(is_settled) and not exists (select from current_job where state = 'pending') from lane",
    )
    .await;
    at_rest(cluster, &run, "CANCELLED", [0, 0, 0, 0, 5]).await;
}
