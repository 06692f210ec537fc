//! What follows from each way in which a probe fails.

use std::time::Duration;

use serde_json::json;

use super::support::{Attempt, assert_books_balance, attempts, jobs, outcomes, quick};
use crate::support::app::Cluster;

/// Runs one probe of this model to its end.
async fn run_one(model: &str, settings: &[(&str, &str)]) -> (Cluster, String) {
    let cluster = Cluster::with(&quick(settings)).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    assert_books_balance(&cluster.db).await;
    (cluster, run)
}

/// The wait before each attempt but the first, in milliseconds.
fn waits(attempts: &[Attempt]) -> Vec<i64> {
    attempts.windows(2).map(|w| (w[1].started_at - w[0].ended_at).num_milliseconds()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_due_starts_by_timer_and_the_waits_grow() {
    let settings = [("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "150"), ("RUNLANE_POLL_INTERVAL_MS", "600000")];
    let (cluster, run) = run_one("mock/echo?failFirst=2", &settings).await;
    assert_eq!(outcomes(&cluster.db).await, ["retried", "retried", "completed"]);
    let attempts = attempts(&cluster.db).await;
    let waits = waits(&attempts);
    assert!(waits[0] >= 150 && waits[1] >= 300, "at least half of 300 and of 600: {waits:?}");
    assert!(waits.iter().all(|&w| w < 30_000), "by timer, not by the poll: {waits:?}");
    let job = &jobs(&cluster.db, &run).await[0];
    assert_eq!((job.failures, job.claims, job.state.as_str()), (2, 3, "completed"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planned_wait_is_within_half_and_whole_of_the_doubling_delay() {
    let wait = [
        ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "600000"),
        ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", "86400000"),
    ];
    let mut cluster = Cluster::api_only(&quick(&wait)).await;
    let definition = cluster.definition(20).await;
    let run = cluster.run(&definition, &["mock/echo?fail=server_error"], json!({})).await;
    cluster.add_node(&[]).await;
    super::support::until_sql(&cluster.db, "all retried", "select count(*) = 20 from attempt").await;
    let waits: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from j.run_at - a.ended_at)::float8 from current_job j join attempt a on a.job_id = j.id",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert!(waits.iter().all(|w| (599.9..=1_200.1).contains(w)), "{waits:?}");
    assert!(waits.iter().any(|w| *w != waits[0]), "they spread out");
    let state = cluster.state(&run).await;
    assert_eq!(state["progress"]["pending"], 20, "what waits for a retry is pending, not failed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_failure_is_tried_four_times() {
    let (cluster, run) = run_one("mock/echo?fail=network", &[]).await;
    assert_eq!(outcomes(&cluster.db).await, ["retried", "retried", "retried", "failed"]);
    let job = &jobs(&cluster.db, &run).await[0];
    assert_eq!((job.state.as_str(), job.failures, job.error_code.as_deref()), ("failed", 4, Some("network")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_fails_at_once() {
    let (cluster, run) = run_one("mock/echo?fail=auth", &[]).await;
    assert_eq!(outcomes(&cluster.db).await, ["failed"]);
    assert_eq!(jobs(&cluster.db, &run).await[0].error_code.as_deref(), Some("auth"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_response_is_retried_once() {
    let (cluster, run) = run_one("mock/echo?fail=invalid_response", &[]).await;
    assert_eq!(outcomes(&cluster.db).await, ["retried", "failed"]);
    assert_eq!(jobs(&cluster.db, &run).await[0].failures, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_counts_no_failure_and_waits_at_least_as_asked() {
    let model = "mock/echo?fail=rate_limit&failFirst=5&retryAfterMs=120";
    let (cluster, run) = run_one(model, &[]).await;
    assert_eq!(
        outcomes(&cluster.db).await,
        ["throttled", "throttled", "throttled", "throttled", "throttled", "completed"]
    );
    let waits = waits(&attempts(&cluster.db).await);
    assert!(waits.iter().all(|&w| w >= 120), "{waits:?}");
    let job = &jobs(&cluster.db, &run).await[0];
    assert_eq!((job.failures, job.throttles), (0, 5));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_beyond_its_total_fails() {
    let model = "mock/echo?fail=rate_limit&retryAfterMs=400";
    let (cluster, run) = run_one(model, &[("RUNLANE_THROTTLE_MAX_SECONDS_PROBE_SCENARIO", "1")]).await;
    assert_eq!(outcomes(&cluster.db).await, ["throttled", "throttled", "failed"]);
    let job = &jobs(&cluster.db, &run).await[0];
    assert_eq!((job.state.as_str(), job.error_code.as_deref()), ("failed", Some("rate_limit")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempts_of_a_job_are_shown_with_number_outcome_and_code() {
    let (cluster, run) = run_one("mock/echo?failFirst=1&fail=timeout", &[]).await;
    let id = jobs(&cluster.db, &run).await[0].id;
    let query = "query($id: ID!) { job(id: $id) { status attempt failures attempts { number outcome errorCode durationMs } } }";
    let answer = cluster.user(query, json!({ "id": id.to_string() })).await;
    let mut job = answer.data()["job"].clone();
    for attempt in job["attempts"].as_array_mut().unwrap() {
        let duration = attempt.as_object_mut().unwrap().remove("durationMs").unwrap();
        assert!(duration.as_i64().unwrap() < Duration::from_secs(60).as_millis() as i64);
    }
    assert_eq!(
        job,
        json!({ "status": "COMPLETED", "attempt": 2, "failures": 1, "attempts": [
            { "number": 1, "outcome": "RETRIED", "errorCode": "timeout" },
            { "number": 2, "outcome": "COMPLETED", "errorCode": null },
        ] })
    );
    cluster.stop().await;
}
