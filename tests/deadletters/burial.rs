//! Every job that gives up is kept as a dead letter, in the transaction that ends it.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::PgPool;

use super::support::{QUICK, acts, assert_entries_match_jobs, entries};
use crate::queue::support::assert_books_balance;
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gives_up_is_kept_with_the_reason_and_all_that_explains_it() {
    let mut settings = QUICK.to_vec();
    settings
        .extend([("RUNLANE_CRASH_LOOP_LOSSES", "1"), ("RUNLANE_THROTTLE_MAX_SECONDS_PROBE_SCENARIO", "1")]);
    let cluster = Cluster::with(&settings).await;
    let models = [
        "mock/echo",
        "mock/echo?failFirst=9",
        "mock/echo?fail=validation",
        "mock/echo?fail=rate_limit&retryAfterMs=5000",
        "mock/echo?crash=exit",
    ];
    let run = cluster.run(&cluster.definition(1).await, &models, json!({ "name": "study" })).await;
    cluster.until_status(&run, "COMPLETED").await;

    let kept = entries(&cluster.db).await;
    let reasons: BTreeMap<&str, (&str, &str)> = kept
        .iter()
        .map(|e| (e.model.as_deref().unwrap(), (e.reason.as_str(), e.error_code.as_str())))
        .collect();
    assert_eq!(
        reasons,
        BTreeMap::from([
            (models[1], ("max_retries_exceeded", "network")),
            (models[2], ("non_retryable", "validation")),
            (models[3], ("max_retries_exceeded", "rate_limit")),
            (models[4], ("crash_loop", "worker_crash")),
        ])
    );
    let spent = kept.iter().find(|e| e.model.as_deref() == Some(models[1])).unwrap();
    assert_eq!((spent.status.as_str(), spent.owner.as_str(), spent.epoch), ("pending", "ada", 0));
    assert_eq!(spent.original_state, "active");
    assert_eq!(spent.snapshot["scenario"]["prompt"], "Rate option 0 from 1 to 5.");
    assert_eq!(spent.snapshot["scenario"]["key"], "s00000");
    assert_eq!(spent.snapshot["model"], models[1]);
    assert_eq!(spent.snapshot["run"]["name"], "study");
    assert_eq!(spent.snapshot["job"]["failures"], 2);
    assert!(spent.snapshot["params"].is_object());
    let attempts = spent.attempts.as_array().unwrap().iter();
    // The one that crashes may take others with it: those attempts are lost, and are kept as well.
    let outcomes: Vec<_> = attempts.map(|a| a["outcome"].clone()).filter(|o| o != "lost").collect();
    assert_eq!(json!(outcomes), json!(["retried", "failed"]));
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_differ_in_numbers_only_have_one_fingerprint() {
    let cluster = Cluster::api_only(&[]).await;
    let print = async |message: &str| -> String {
        sqlx::query_scalar("select error_fingerprint('network', $1)")
            .bind(message)
            .fetch_one(&cluster.db)
            .await
            .unwrap()
    };
    let one = print("no answer from 10.0.0.1:443 after 30 s (request 7f3a9)").await;
    assert_eq!(one, print("No answer from 10.0.0.27:8443 after 31 s (request 0c41e)").await);
    assert_ne!(one, print("refused by 10.0.0.1:443 after 30 s (request 7f3a9)").await);
    cluster.stop().await;
}

async fn bury(db: &PgPool, jobs: &[i64]) -> Vec<i64> {
    let mut transaction = db.begin().await.unwrap();
    sqlx::query("select from lane order by id for update").execute(&mut *transaction).await.unwrap();
    let buried = sqlx::query_scalar(
        "select bury_jobs($1, 'staleness_timeout', 'staleness_timeout', 'waited too long', '{\"stage\": \"waiting\"}')",
    )
    .bind(jobs)
    .fetch_all(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    buried
}

async fn waiting(db: &PgPool, run: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "select j.id from current_job j join lane l on l.id = j.lane_id where l.run_id = $1::uuid and j.state = 'pending' order by j.id",
    )
    .bind(run)
    .fetch_all(db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_is_given_up_with_exact_counters_and_its_run_ends_with_the_last() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({})).await;
    let jobs = waiting(&cluster.db, &run).await;

    assert_eq!(bury(&cluster.db, &jobs[..1]).await, jobs[..1]);
    let state = cluster.state(&run).await;
    assert_eq!((&state["progress"]["pending"], &state["progress"]["failed"]), (&json!(2), &json!(1)));
    assert_eq!(state["status"], "PENDING");
    let entry = entries(&cluster.db).await.swap_remove(0);
    assert_eq!((entry.reason.as_str(), entry.original_state.as_str()), ("staleness_timeout", "pending"));
    assert_eq!((entry.metadata, entry.attempts), (json!({ "stage": "waiting" }), json!([])));
    let recorded = acts(&cluster.db, "job.dead_letter").await;
    assert_eq!((recorded.len(), recorded[0].0.as_str()), (1, "system"));

    assert_eq!(bury(&cluster.db, &jobs).await, jobs[1..], "only what waits gives up");
    let state = cluster.state(&run).await;
    assert_eq!((&state["status"], &state["progress"]["failed"]), (&json!("COMPLETED"), &json!(3)));
    assert_eq!(state["analyses"][0]["status"], "PENDING", "the end of the run has it analysed");
    assert_books_balance(&cluster.db).await;
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_by_its_lane_is_not_given_up() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    let jobs = waiting(&cluster.db, &run).await;
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": run })).await.data();
    assert_eq!(bury(&cluster.db, &jobs).await, Vec::<i64>::new());
    assert!(entries(&cluster.db).await.is_empty());
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_a_cancelled_run_has_not_used_up_its_retries() {
    let cluster = Cluster::start().await;
    let slow = ["mock/echo?failFirst=9&delayMs=1000"];
    let run = cluster.run(&cluster.definition(1).await, &slow, json!({})).await;
    cluster.until(&run, "started", |s| s["progress"]["active"] == 1).await;
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": run })).await.data();
    cluster.until(&run, "ended", |s| s["progress"]["failed"] == 1).await;
    let entry = entries(&cluster.db).await.swap_remove(0);
    assert_eq!((entry.reason.as_str(), entry.error_code.as_str()), ("non_retryable", "network"));
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}
