//! Pausing everything.

use runlane::domain::Role;
use serde_json::json;

use super::support::{EAGER, claims, counts, looked, mutation, queue};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_pauses_and_resumes_the_queue() {
    let cluster = Cluster::api_only(&[]).await;
    for role in [Role::Viewer, Role::User] {
        for call in ["pauseQueue", "resumeQueue"] {
            let answer = cluster.ask("ada", role, &mutation(call), json!({})).await;
            assert_eq!(answer.code(), "FORBIDDEN", "{call} as {role}");
        }
    }
    let status = cluster.user("{ queueStatus { isPaused } }", json!({})).await;
    assert_eq!(status.data()["queueStatus"]["isPaused"], false);
    assert_eq!(queue(&cluster, "pauseQueue").await["isPaused"], true);
    for call in ["pauseQueue", "resumeQueue"] {
        assert_eq!(cluster.user(&mutation(call), json!({})).await.code(), "FORBIDDEN");
    }
    assert_eq!(queue(&cluster, "resumeQueue").await["isPaused"], false);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_pause_keeps_the_first_and_repeats_are_no_error() {
    let cluster = Cluster::api_only(&[]).await;
    let first = queue(&cluster, r#"pauseQueue(reason: "the bill")"#).await;
    assert_eq!((&first["pausedBy"], &first["pauseReason"]), (&json!("root"), &json!("the bill")));
    assert!(first["pausedAt"].is_string());
    let again =
        cluster.ask("eve", Role::Admin, &mutation(r#"pauseQueue(reason: "another")"#), json!({})).await;
    assert_eq!(again.data()["it"], first);
    assert_eq!(queue(&cluster, "pauseQueue").await, first);
    for _ in 0..2 {
        let resumed = queue(&cluster, "resumeQueue").await;
        assert_eq!(resumed["isPaused"], false);
        for field in ["pausedAt", "pausedBy", "pauseReason"] {
            assert!(resumed[field].is_null(), "{resumed}");
        }
        assert_eq!(resumed["id"], first["id"]);
    }
    let without = queue(&cluster, "pauseQueue").await;
    assert!(without["pauseReason"].is_null() && without["pausedAt"] != first["pausedAt"], "{without}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_pause_queue_has_returned_no_further_job_of_anybody_starts() {
    let mut cluster = Cluster::with(&EAGER).await;
    cluster.add_node(&[]).await;
    let run = cluster.run(&cluster.definition(5_000).await, &["mock/echo?delayMs=5"], json!({})).await;
    cluster.until(&run, "well under way", |s| counts(s)[2] >= 50).await;
    queue(&cluster, "pauseQueue").await;
    let started = claims(&cluster, &run).await;
    looked(&cluster).await;
    let settled = cluster.until(&run, "at rest", |s| counts(s)[1] == 0).await;
    assert_eq!(claims(&cluster, &run).await, started, "a job started after the pause had returned");
    assert_eq!(counts(&settled), [5_000 - started, 0, started, 0, 0]);
    assert_eq!(settled["status"], "RUNNING", "a paused queue changes no run");
    let late: bool = sqlx::query_scalar(
        "select max(a.started_at) > q.paused_at from attempt a, queue_state q group by q.paused_at",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert!(!late, "a claim is later than the pause");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_started_under_a_queue_pause_stays_pending_over_a_restart_and_runs_after_the_resume() {
    let mut cluster = Cluster::with(&EAGER).await;
    let paused = queue(&cluster, r#"pauseQueue(reason: "night")"#).await;
    let run = cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({})).await;
    looked(&cluster).await;
    cluster.restart().await;
    looked(&cluster).await;
    let waiting = cluster.state(&run).await;
    assert_eq!((&waiting["status"], &waiting["startedAt"]), (&json!("PENDING"), &json!(null)));
    assert_eq!(counts(&waiting), [3, 0, 0, 0, 0]);
    assert_eq!(claims(&cluster, &run).await, 0);
    let status = queue(&cluster, "pauseQueue").await;
    for field in ["pausedAt", "pausedBy", "pauseReason"] {
        assert_eq!(status[field], paused[field]);
    }
    let resumed = queue(&cluster, "resumeQueue").await;
    assert_eq!(resumed["isPaused"], false);
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert!(done["startedAt"].is_string());
    cluster.stop().await;
}
