//! Progress is exact at every instant, and nothing deadlocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::support::{assert_books_balance, quick};
use crate::support::app::Cluster;

fn adds_up(progress: &Value) {
    let n = |v: &Value, key: &str| v[key].as_i64().unwrap();
    let keys = ["pending", "active", "completed", "failed", "cancelled"];
    let sum = |v: &Value| keys.iter().map(|k| n(v, k)).sum::<i64>();
    assert_eq!(sum(progress), n(progress, "total"), "{progress}");
    let models = progress["byModel"].as_array().unwrap();
    for key in keys.iter().chain(&["total"]) {
        assert_eq!(models.iter().map(|m| n(m, key)).sum::<i64>(), n(progress, key), "{key} of {progress}");
    }
    let finished = n(progress, "completed") + n(progress, "failed") + n(progress, "cancelled");
    let percent = 100.0 * finished as f64 / n(progress, "total") as f64;
    assert!((progress["percentComplete"].as_f64().unwrap() - percent).abs() < 1e-6, "{progress}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_adds_up_at_every_moment_while_four_nodes_work() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let definition = cluster.definition(25).await;
    let models = [
        "mock/rater?delayMs=5",
        "mock/echo?failFirst=1&delayMs=3",
        "mock/echo?fail=validation",
        "mock/echo?fail=network",
        "mock/echo?fail=rate_limit&failFirst=2&retryAfterMs=10",
    ];
    for _ in 0..4 {
        cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "4")]).await;
    }
    let run = cluster.run(&definition, &models, json!({})).await;
    let mut finished = 0;
    let state = loop {
        let state = cluster.state(&run).await;
        adds_up(&state["progress"]);
        let now = ["completed", "failed"].iter().map(|k| state["progress"][k].as_i64().unwrap()).sum();
        assert!(now >= finished, "finished jobs stay finished: {finished}, then {now}");
        finished = now;
        if state["status"] == "COMPLETED" {
            break state;
        }
    };
    assert_eq!(
        (state["progress"]["completed"].as_i64(), state["progress"]["failed"].as_i64()),
        (Some(75), Some(50))
    );
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_control_of_many_lanes_neither_fails_nor_loses_a_job() {
    const ROUNDS: usize = 20;
    // The test is about what locks do to each other, and not about how long a busy machine makes people wait for them.
    let mut cluster = Cluster::api_only(&quick(&[
        ("RUNLANE_MAINTENANCE_INTERVAL", "50ms"),
        ("RUNLANE_LOCK_TIMEOUT_MS", "60000"),
        ("RUNLANE_STATEMENT_TIMEOUT_MS", "120000"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "30000"),
        ("RUNLANE_HTTP_REQUEST_TIMEOUT_MS", "120000"),
    ]))
    .await;
    let definition = cluster.definition(6).await;
    for _ in 0..4 {
        cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "4")]).await;
    }
    let models: Vec<String> =
        (0..5).map(|i| format!("mock/echo?delayMs={i}&fail=validation&failFirst=1&a={i}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let mut runs = Vec::new();
    for i in 0..4 {
        let more = if i % 2 == 0 { json!({ "maxConcurrency": 3 }) } else { json!({}) };
        runs.push(cluster.run(&definition, &models, more).await);
    }
    let cluster = Arc::new(cluster);
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (cluster, runs, is_over) = (Arc::clone(&cluster), runs.clone(), Arc::clone(&is_over));
        async move {
            while !is_over.load(Ordering::Relaxed) {
                for run in &runs {
                    adds_up(&cluster.state(run).await["progress"]);
                }
            }
        }
    });
    let mut people = Vec::new();
    for person in 0..4 {
        let (cluster, runs) = (Arc::clone(&cluster), runs.clone());
        people.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let run = &runs[(round * 5 + person) % runs.len()];
                let mutation = match (round + person) % 5 {
                    0 => "mutation($id: ID!) { pauseRun(id: $id) { id } }",
                    1 | 3 => "mutation($id: ID!) { resumeRun(id: $id) { id } }",
                    2 => "mutation($id: ID!) { retryFailedJobs(runId: $id) { id } }",
                    _ => "mutation($id: ID!) { startAnalysis(runId: $id, kind: BASIC) { id } }",
                };
                let answer = cluster.user(mutation, json!({ "id": run })).await;
                if answer.body.get("errors").is_some() {
                    assert_eq!(answer.code(), "RUN_STATE_ERROR", "{}", answer.body);
                }
            }
        }));
    }
    for person in people {
        person.await.unwrap();
    }
    // One is cancelled at the end; whoever is paused goes on.
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": runs[0] })).await;
    for run in &runs {
        cluster.user("mutation($id: ID!) { resumeRun(id: $id) { id } }", json!({ "id": run })).await;
    }
    for run in &runs {
        let state = cluster
            .until(run, "at rest", |s| {
                (s["status"] == "COMPLETED" || s["status"] == "CANCELLED")
                    && s["progress"]["active"] == 0
                    && s["analyses"].as_array().is_some_and(|a| a.iter().all(|a| a["status"] == "COMPLETED"))
            })
            .await;
        adds_up(&state["progress"]);
    }
    is_over.store(true, Ordering::Relaxed);
    watcher.await.unwrap();
    assert_books_balance(&cluster.db).await;
    Arc::into_inner(cluster).unwrap().stop().await;
}
