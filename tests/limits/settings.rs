//! Who may set a limit, to what, and where limits come from.

use serde_json::json;

use super::{limit, set_limit};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_sets_limits_and_every_mistake_is_told() {
    let cluster = Cluster::api_only(&[]).await;
    let set = "mutation { setLimit(name: \"mock\", inFlight: 1) { name } }";
    assert_eq!(cluster.user(set, json!({})).await.code(), "FORBIDDEN");
    let answer = set_limit(&cluster, json!({ "name": "opnai", "inFlight": 0, "tokensPerMinute": -1 })).await;
    let refusal = answer.refusal();
    assert_eq!(refusal["code"], "VALIDATION_ERROR");
    let fields: Vec<&str> =
        refusal["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["name", "inFlight", "tokensPerMinute"]);
    assert_eq!(limit(&cluster, "opnai").await, json!(null));
    let unknown = cluster.admin("mutation { releaseLimit(name: \"mock\") { name } }", json!({})).await;
    assert_eq!(unknown.code(), "NOT_FOUND");
    let set = set_limit(&cluster, json!({ "name": "mock", "inFlight": 3, "requestsPerMinute": 60 })).await;
    assert_eq!(
        set.data()["setLimit"],
        json!({ "name": "mock", "inFlightMax": 3, "requestsPerMinute": 60, "tokensPerMinute": null, "setBy": "root",
                "inFlight": 0, "bearable": null, "requests": 0, "tokens": 0 })
    );
    let acts: Vec<(String, serde_json::Value)> =
        sqlx::query_as("select actor, after from audit where action = 'setLimit'")
            .fetch_all(&cluster.db)
            .await
            .unwrap();
    let after = json!({ "inFlight": 3, "requestsPerMinute": 60, "tokensPerMinute": null });
    assert_eq!(acts, [("root".to_owned(), after)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_limits_are_in_force_and_an_admins_win_over_them() {
    let declared = [("RUNLANE_LIMITS", "mock inFlight=4; openai requestsPerMinute=500")];
    let mut cluster = Cluster::api_only(&declared).await;
    let mock = limit(&cluster, "mock").await;
    assert_eq!((&mock["inFlightMax"], &mock["setBy"]), (&json!(4), &json!("configuration")));
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 9 })).await.data();
    // Another node with another opinion about both.
    cluster.add_node(&[("RUNLANE_LIMITS", "mock inFlight=1; openai requestsPerMinute=600")]).await;
    assert_eq!(limit(&cluster, "mock").await["inFlightMax"], 9);
    assert_eq!(limit(&cluster, "openai").await["requestsPerMinute"], 600);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_too_deep_takes_no_new_run_and_says_when_to_come_again() {
    let settings = [("RUNLANE_QUEUE_WAITING_JOBS_MAX", "5"), ("RUNLANE_QUEUE_FULL_RETRY_AFTER_MS", "7000")];
    let cluster = Cluster::api_only(&settings).await;
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let shed = cluster.start_run(&definition, &["mock/echo"], json!({})).await;
    assert_eq!((shed.code(), shed.status), ("UNAVAILABLE", 503));
    assert_eq!(shed.refusal()["retryAfterMs"], 7_000);
    assert_eq!(shed.headers["retry-after"], "7");
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": run })).await.data();
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    let runs: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(runs, 2);
    cluster.stop().await;
}
