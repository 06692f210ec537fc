//! What wakes a node: notifications, and the poll behind them.

use serde_json::json;

use super::support::quick;
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_an_idle_node_at_once() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_POLL_INTERVAL_MS", "600000")])).await;
    let definition = cluster.definition(2).await;
    // The first look of a new node could find the first run; the others only a notification can announce.
    for _ in 0..3 {
        let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_wakes_an_idle_node() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_POLL_INTERVAL_MS", "600000")])).await;
    let definition = cluster.definition(2).await;
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.admin("mutation { resumeQueue { isPaused } }", json!({})).await.data();
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notification_costs_no_more_than_a_poll() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_POLL_INTERVAL_MS", "200")])).await;
    let definition = cluster.definition(2).await;
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    // As a resume, but nobody is told.
    sqlx::query(
        "update queue_state set is_paused = false, paused_at = null, paused_by = null, pause_reason = null",
    )
    .execute(&cluster.db)
    .await
    .unwrap();
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}
