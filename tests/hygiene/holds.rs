//! Many jobs that crash in the same way: their lane is held, says so, and goes on when somebody releases it.

use runlane::domain::Role;
use serde_json::{Value, json};

use crate::queue::support::{assert_books_balance, quick};
use crate::support::app::{Answer, Cluster, PATIENCE};

const SEGV: &str = "mock/echo?crash=segv";
const RELEASE: &str = "mutation($run: ID!, $model: String!) { releaseLane(runId: $run, modelId: $model) {
    id progress { byModel { modelId heldBecause heldAt } } } }";

/// Jobs that crash before a hold: as many as it takes, and one that was claimed while the last crash was being recorded.
const MORE: std::ops::RangeInclusive<i64> = 3..=4;

async fn release(cluster: &Cluster, run: &str, model: &str) -> Answer {
    cluster.user(RELEASE, json!({ "run": run, "model": model })).await
}

/// Waits until the run's only crashing model is held; returns why, and its counts.
async fn held(cluster: &Cluster, run: &str) -> Value {
    let query = "query($id: ID!) { run(id: $id) { progress {
        byModel { modelId pending active completed failed heldBecause heldAt } } } }";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = cluster.admin(query, json!({ "id": run })).await;
        let models = answer.data()["run"]["progress"]["byModel"].as_array().unwrap().clone();
        let lane = models.into_iter().find(|m| m["modelId"] == SEGV).unwrap();
        if !lane["heldBecause"].is_null() && lane["active"] == 0 {
            return lane;
        }
        assert!(tokio::time::Instant::now() < deadline, "not held: {lane:#}");
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
    }
}

async fn crashed(cluster: &Cluster) -> i64 {
    sqlx::query_scalar("select count(distinct job_id) from attempt where fingerprint is not null")
        .fetch_one(&cluster.db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_jobs_all_crash_is_held_until_released_and_costs_no_other_lane() {
    // One job at a time, so that the count is nearly exact.
    let settings = [
        ("RUNLANE_CRASH_HOLD_JOBS", "3"),
        ("RUNLANE_CRASH_LOOP_LOSSES", "100"),
        ("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "1"),
    ];
    let cluster = Cluster::with(&quick(&settings)).await;
    let definition = cluster.definition(12).await;
    let run = cluster.run(&definition, &[SEGV, "mock/echo"], json!({})).await;
    let state = cluster
        .until(&run, "the good model is done", |s| s["progress"]["byModel"][1]["completed"] == 12)
        .await;
    assert_eq!(state["status"], "RUNNING");
    let lane = held(&cluster, &run).await;
    assert_eq!((&lane["pending"], &lane["failed"]), (&json!(12), &json!(0)), "{lane:#}");
    let why = lane["heldBecause"].as_str().unwrap();
    assert!(
        why.starts_with("3 of its jobs crash their worker in the same way: ") && why.contains("SIGSEGV"),
        "{why}"
    );
    let first = crashed(&cluster).await;
    assert!(MORE.contains(&first), "{first}");

    // Every waiting job says so.
    let query = "query($id: ID!) { run(id: $id) { estimatedTimeRemaining jobs(first: 50) { edges { node { status modelId waitingBecause } } } } }";
    let answer = cluster.admin(query, json!({ "id": run })).await;
    for edge in answer.data()["run"]["jobs"]["edges"].as_array().unwrap() {
        if edge["node"]["status"] == "PENDING" && edge["node"]["modelId"] == SEGV {
            let because = edge["node"]["waitingBecause"].as_str().unwrap();
            assert!(because.contains("held") && because.contains("releaseLane"), "{because}");
        }
    }
    assert_eq!(answer.data()["run"]["estimatedTimeRemaining"], Value::Null, "nothing moves");

    // Released, it goes on, and is held again only by as many crashes again.
    let answer = release(&cluster, &run, SEGV).await;
    let lane = &answer.data()["releaseLane"]["progress"]["byModel"][0];
    assert_eq!((&lane["heldBecause"], &lane["heldAt"]), (&Value::Null, &Value::Null));
    held(&cluster, &run).await;
    // Other jobs than before: those wait behind the ones that never ran.
    let more = crashed(&cluster).await - first;
    assert!(MORE.contains(&more), "{more}");
    let acts: Vec<(String, String)> =
        sqlx::query_as("select action, actor from audit where subject_kind = 'lane' order by id")
            .fetch_all(&cluster.db)
            .await
            .unwrap();
    let acts: Vec<_> = acts.iter().map(|(action, actor)| (action.as_str(), actor.as_str())).collect();
    assert_eq!(acts, [("lane.held", "system"), ("lane.released", "ada"), ("lane.held", "system")]);

    // A cancel ends the hold with everything else.
    let cancel = "mutation($id: ID!) { cancelRun(id: $id) { status progress { byModel { heldBecause } } } }";
    let answer = cluster.user(cancel, json!({ "id": run })).await;
    assert_eq!(answer.data()["cancelRun"]["progress"]["byModel"][0]["heldBecause"], Value::Null);
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_released_by_its_owner_or_an_admin_and_must_exist() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    // Nothing is held: nothing changes, also when repeated.
    let before = cluster.state(&run).await;
    for _ in 0..2 {
        release(&cluster, &run, "mock/echo").await.data();
    }
    assert_eq!(cluster.state(&run).await["revision"], before["revision"]);
    let unknown = release(&cluster, &run, "mock/nobody").await;
    assert_eq!((unknown.code(), &unknown.refusal()["field"]), ("VALIDATION_ERROR", &json!("modelId")));
    let variables = json!({ "run": run, "model": "mock/echo" });
    for (who, role, code) in [("bob", Role::User, "NOT_FOUND"), ("eve", Role::Viewer, "FORBIDDEN")] {
        assert_eq!(cluster.ask(who, role, RELEASE, variables.clone()).await.code(), code);
    }
    cluster.admin(RELEASE, variables).await.data();
    let missing = release(&cluster, "0190f1a2-7c1b-7a2e-9a55-1f0a2b3c4d5e", "mock/echo").await;
    assert_eq!(missing.code(), "NOT_FOUND");
    cluster.stop().await;
}
