//! A provider that asks everybody to wait, or refuses everybody.

use serde_json::json;

use super::{limit, reasons, set_limit};
use crate::queue::support::{assert_books_balance, attempts, quick, until_sql};
use crate::support::app::Cluster;

/// Waits until the mock is held, and what was claimed before that has ended.
async fn until_held(cluster: &Cluster) {
    let condition =
        "select bool_or(r.held_at is not null) and not exists (select from current_job where state = 'active')
                       from rate_limit r";
    until_sql(&cluster.db, "held", condition).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_holds_the_model_for_everyone_and_says_until_when() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let model = "mock/echo?fail=rate_limit&failFirst=1&retryAfterMs=600000&hold=1";
    set_limit(&cluster, json!({ "name": model, "inFlight": 8 })).await.data();
    let definition = cluster.definition(20).await;
    let run = cluster.run(&definition, &[model], json!({})).await;
    for _ in 0..2 {
        cluster.add_node(&[]).await;
    }
    let condition = "select exists (select from rate_limit where held_until is not null)
                            and not exists (select from current_job where state = 'active')";
    until_sql(&cluster.db, "held", condition).await;
    let attempts = attempts(&cluster.db).await;
    assert_eq!(attempts.len(), 8, "only those that were in flight were refused");
    assert!(attempts.iter().all(|a| a.outcome == "throttled"), "{attempts:#?}");
    let why = reasons(&cluster, &run).await;
    assert!(
        why.iter().any(|w| w.starts_with(&format!("The limit for model {model} is held until 20"))),
        "{why:?}"
    );
    let state = limit(&cluster, model).await;
    assert_eq!(state["bearable"], 4, "half of the eight: {state}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_429_refused_completes_when_the_hold_is_over_and_has_failed_nothing() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let model = "mock/echo?fail=rate_limit&failFirst=1&retryAfterMs=50&hold=1";
    set_limit(&cluster, json!({ "name": model, "inFlight": 8 })).await.data();
    let definition = cluster.definition(20).await;
    let run = cluster.run(&definition, &[model], json!({})).await;
    for _ in 0..2 {
        cluster.add_node(&[]).await;
    }
    cluster.until_status(&run, "COMPLETED").await;
    let all = attempts(&cluster.db).await;
    let of = |outcome: &str| all.iter().filter(|a| a.outcome == outcome).count();
    assert_eq!((of("completed"), of("throttled"), all.len()), (20, 20, 40));
    let failures: i64 = sqlx::query_scalar("select sum(failures)::bigint from current_job")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    assert_eq!(failures, 0);
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_bring_the_ceiling_back() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 8 })).await.data();
    sqlx::query("update rate_limit set concurrency = 2, slowed_at = now()")
        .execute(&cluster.db)
        .await
        .unwrap();
    let definition = cluster.definition(60).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    assert_eq!(limit(&cluster, "mock").await["bearable"], 2);
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    // Two, three, four … eight at a time: 2 + 3 + … + 7 completions.
    assert_eq!(limit(&cluster, "mock").await["bearable"], json!(null));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_fails_its_job_and_holds_the_provider_until_somebody_looks() {
    let mut cluster = Cluster::api_only(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "1")])).await;
    let definition = cluster.definition(100).await;
    let run = cluster.run(&definition, &["mock/echo?fail=auth&hold=1"], json!({})).await;
    let sibling = cluster.run(&definition, &["mock/echo"], json!({ "priority": "LOW" })).await;
    cluster.add_node(&[]).await;
    until_held(&cluster).await;
    assert_eq!(limit(&cluster, "mock").await["hold"]["code"], "auth");
    let held = "{ queueStatus { heldProviders { name hold { code } } } }";
    let answer = cluster.user(held, json!({})).await;
    assert_eq!(
        answer.data()["queueStatus"]["heldProviders"],
        json!([{ "name": "mock", "hold": { "code": "auth" } }])
    );
    for run in [&run, &sibling] {
        let why = reasons(&cluster, run).await;
        assert_eq!(why.len(), 1, "{why:?}");
        assert!(why[0].starts_with("The provider mock is held since 20"), "{why:?}");
        assert!(why[0].ends_with("it starts after releaseLimit."), "{why:?}");
    }
    let release = "mutation { releaseLimit(name: \"mock\") { name hold { code } } }";
    assert_eq!(cluster.user(release, json!({})).await.code(), "FORBIDDEN");
    // Nothing was mended: the next one is refused as well, and the others still wait.
    let before = cluster.state(&run).await["progress"]["failed"].clone();
    cluster.admin(release, json!({})).await.data();
    until_held(&cluster).await;
    assert!(cluster.state(&run).await["progress"]["failed"].as_i64() > before.as_i64());
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": run })).await.data();
    cluster.admin(release, json!({})).await.data();
    cluster.until_status(&sibling, "COMPLETED").await;
    let acts: Vec<(String, String)> =
        sqlx::query_as("select action, actor from audit where subject_kind = 'limit' order by id")
            .fetch_all(&cluster.db)
            .await
            .unwrap();
    let acts: Vec<(&str, &str)> = acts.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        acts,
        [
            ("limit.held", "system"),
            ("releaseLimit", "root"),
            ("limit.held", "system"),
            ("releaseLimit", "root")
        ]
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mock_holds_nothing_unless_it_is_told_to() {
    let cluster = Cluster::with(&quick(&[])).await;
    let definition = cluster.definition(2).await;
    let run = cluster
        .run(
            &definition,
            &["mock/echo?fail=quota_exhausted", "mock/echo?fail=rate_limit&failFirst=1&retryAfterMs=5"],
            json!({}),
        )
        .await;
    cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(limit(&cluster, "mock").await, json!(null));
    let limits: i64 =
        sqlx::query_scalar("select count(*) from rate_limit").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(limits, 0);
    cluster.stop().await;
}
