//! Nodes that are real processes: what becomes of their jobs when they are stopped or killed.

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{Node, assert_books_balance, attempts, children, is_running, jobs, quick, until_sql};
use crate::support::app::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_killed_node_are_claimed_again_within_ten_seconds() {
    let mut cluster = Cluster::api_only(&[("RUNLANE_WORKER_CONCURRENCY", "4")]).await;
    let definition = cluster.definition(4).await;
    let node = Node::start(&cluster, "work", &[]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=2500"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    cluster.add_node(&[]).await;
    let workers = children(node.pid());
    assert!(!workers.is_empty());
    let killed_at: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&cluster.db).await.unwrap();
    node.signal(Signal::SIGKILL);
    drop(node.wait());
    cluster.until_status(&run, "COMPLETED").await;
    for job in jobs(&cluster.db, &run).await {
        assert_eq!(
            (job.state.as_str(), job.claims, job.failures, job.losses, job.losses_alone),
            ("completed", 2, 0, 1, 0),
            "{job:?}"
        );
    }
    for attempt in attempts(&cluster.db).await {
        let after = (attempt.started_at - killed_at).num_milliseconds();
        assert!(after < 10_000, "claimed again after {after} ms");
        if attempt.number == 1 {
            assert_eq!(
                (attempt.outcome.as_str(), attempt.error_code.as_deref()),
                ("lost", Some("node_lost"))
            );
        }
    }
    assert!(workers.iter().all(|&pid| !is_running(pid)), "no orphans");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

/// A free port; somebody else could take it before the node does, then the node says so and the test fails.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_claims_nothing_more_and_lets_its_jobs_finish() {
    let cluster = Cluster::api_only(&[("RUNLANE_WORKER_CONCURRENCY", "3")]).await;
    let address = free_address();
    let definition = cluster.definition(6).await;
    let node = Node::start(&cluster, "serve", &[("RUNLANE_LISTEN", &address)]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=1500"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 3).await;
    let ready = format!("http://{address}/ready");
    assert_eq!(reqwest::get(&ready).await.unwrap().status(), 200);
    node.signal(Signal::SIGTERM);
    node.until_logged("stopping: running jobs may finish");
    assert_eq!(reqwest::get(&ready).await.unwrap().status(), 503, "not ready while draining");
    let status = tokio::task::spawn_blocking(move || node.wait().0).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let attempts = attempts(&cluster.db).await;
    assert_eq!(attempts.len(), 3, "nothing more was claimed");
    assert!(attempts.iter().all(|a| a.outcome == "completed"), "{attempts:#?}");
    let state = cluster.state(&run).await;
    assert_eq!(
        (state["progress"]["pending"].as_i64(), state["progress"]["completed"].as_i64()),
        (Some(3), Some(3))
    );
    let nodes: i64 = sqlx::query_scalar("select count(*) from node").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(nodes, 0, "it has signed off");
    cluster.stop().await;
}

/// Stops a node whose jobs would take ten minutes; they must be given back at once and be run elsewhere, unblamed.
async fn given_back(grace_ms: &str, signals: usize) {
    // No poll helps the other node: what is given back is announced.
    let poll = ("RUNLANE_POLL_INTERVAL_MS", "600000");
    let mut cluster = Cluster::api_only(&quick(&[poll, ("RUNLANE_WORKER_CONCURRENCY", "3")])).await;
    let definition = cluster.definition(3).await;
    let node = Node::start(&cluster, "work", &[("RUNLANE_SHUTDOWN_GRACE_MS", grace_ms)]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 3).await;
    cluster.add_node(&[]).await;
    let began = std::time::Instant::now();
    node.signal(Signal::SIGTERM);
    if signals > 1 {
        node.until_logged("draining");
        node.signal(Signal::SIGTERM);
    }
    let status = tokio::task::spawn_blocking(move || node.wait().0).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < PATIENCE);
    until_sql(
        &cluster.db,
        "claimed elsewhere",
        "select bool_and(claims = 2 and state = 'active') from current_job",
    )
    .await;
    for job in jobs(&cluster.db, &run).await {
        assert_eq!((job.failures, job.losses, job.throttles), (0, 0, 0), "{job:?}");
    }
    let outcomes: Vec<String> = attempts(&cluster.db).await.into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["released"; 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_outlast_the_grace_are_given_back_unblamed() {
    given_back("50", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_hurries() {
    given_back("3600000", 2).await;
}
