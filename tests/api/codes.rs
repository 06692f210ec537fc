//! Every `extensions.code` that can arise, each from its cause, over the real server.

use std::collections::BTreeMap;

use runlane::domain::Role;
use serde_json::{Value, json};
use sqlx::Executor;

use super::rows;
use crate::http::observability::Log;
use crate::support::app::{Answer, Cluster};

/// The codes of the contract that this surface can answer with; RATE_LIMITED has no cause yet.
const CODES: [&str; 10] = [
    "CONFLICT",
    "FORBIDDEN",
    "INTERNAL",
    "JOB_VALIDATION_ERROR",
    "NOT_FOUND",
    "QUEUE_ERROR",
    "RUN_STATE_ERROR",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "VALIDATION_ERROR",
];

#[tokio::test]
async fn every_code_has_its_cause_its_status_and_its_extensions() {
    let mut seen: BTreeMap<String, (u16, Value)> = BTreeMap::new();
    let mut note = |answer: Answer| {
        let refusal = answer.refusal().clone();
        seen.insert(refusal["code"].as_str().unwrap().to_owned(), (answer.status, refusal));
    };
    let cluster = Cluster::api_only(&[("RUNLANE_RUN_JOBS_MAX", "5")]).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({"idempotencyKey": "k"})).await;
    let id = json!({ "id": run });
    let pause = "mutation($id: ID!) { pauseRun(id: $id) { id } }";
    note(cluster.send(None, "{ queueStatus { id } }", json!({})).await);
    note(cluster.ask("eve", Role::Viewer, pause, id.clone()).await);
    note(cluster.ask("bob", Role::User, pause, id.clone()).await);
    note(cluster.start_run(&definition, &[], json!({})).await);
    note(cluster.start_run(&definition, &["mock/a", "mock/b"], json!({})).await);
    note(cluster.start_run(&definition, &["mock/b"], json!({"idempotencyKey": "k"})).await);
    note(cluster.user("mutation($id: ID!) { resumeRun(id: $id) { id } }", id.clone()).await);
    let job = super::of_run(&cluster, &run, "jobs { nodes { id } }").await["jobs"]["nodes"][0].clone();
    note(cluster.user("mutation($id: ID!) { retryJob(id: $id) { id } }", job).await);
    note(internal(&cluster, &definition).await);
    cluster.stop().await;
    note(unavailable().await);

    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), CODES);
    for (code, (status, refusal)) in &seen {
        let expected = match code.as_str() {
            "UNAUTHENTICATED" => 401,
            "UNAVAILABLE" => 503,
            _ => 200,
        };
        assert_eq!(*status, expected, "{code}");
        let mut names: Vec<&str> = refusal.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected: &[&str] = match code.as_str() {
            "INTERNAL" => &["code", "errorId"],
            "JOB_VALIDATION_ERROR" | "RUN_STATE_ERROR" => &["action", "code", "currentStatus"],
            "QUEUE_ERROR" => &["code", "jobs", "limit"],
            "UNAVAILABLE" => &["code", "retryAfterMs"],
            "VALIDATION_ERROR" => &["code", "errors", "field"],
            _ => &["code"],
        };
        assert_eq!(names, expected, "{code}");
    }
}

/// Rows that say what the program cannot understand. The answer has an id, the log has the cause under that id.
async fn internal(cluster: &Cluster, definition: &str) -> Answer {
    sqlx::query("update definition set content = '\"a-corrupt-row\"'").execute(&cluster.db).await.unwrap();
    let before = rows(&cluster.db).await;
    let log = Log::capture();
    let answer = cluster.start_run(definition, &["mock/echo"], json!({})).await;
    let id = answer.refusal()["errorId"].as_str().unwrap().to_owned();
    let line = log.lines().into_iter().find(|l| l.contains(&id)).expect("the id is in the log");
    assert!(line.contains("a-corrupt-row"), "{line}");
    let shown = answer.body.to_string();
    assert!(!shown.contains("corrupt") && !shown.contains("invalid type"), "{shown}");
    assert_eq!(rows(&cluster.db).await, before);
    answer
}

/// The only connection waits for a lock of ours; the next request finds none.
async fn unavailable() -> Answer {
    let cluster =
        Cluster::api_only(&[("RUNLANE_API_POOL_SIZE", "1"), ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "100")])
            .await;
    let mut lock = cluster.db.begin().await.unwrap();
    lock.execute("lock table definition in access exclusive mode").await.unwrap();
    let (blocked, answer) = tokio::join!(
        cluster.user("{ definitions { nodes { id } } }", json!({})),
        async {
            let waits = "select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&cluster.db).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
            let answer = cluster.user("{ queueStatus { id } }", json!({})).await;
            lock.rollback().await.unwrap();
            answer
        }
    );
    blocked.data();
    assert!(answer.refusal()["retryAfterMs"].as_i64().unwrap() > 0);
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    assert!(!answer.body.to_string().contains("pool"), "{}", answer.body);
    cluster.stop().await;
    answer
}
