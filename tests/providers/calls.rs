//! Runs over real client libraries, from `startRun` to the transcript.

use serde_json::{Value, json};

use super::{KEYS, urls};
use crate::queue::support::attempts;
use crate::support::app::Cluster;
use crate::support::stub::Stub;

async fn cluster(stub: &Stub, more: &[(&str, &str)]) -> Cluster {
    let urls = urls(stub);
    let mut settings: Vec<(&str, &str)> = KEYS.to_vec();
    settings.extend(urls.iter().map(|(name, url)| (*name, url.as_str())));
    settings.extend(more);
    Cluster::with(&settings).await
}

#[tokio::test]
async fn a_run_over_every_kind_of_provider_completes_and_each_key_reaches_its_provider_only() {
    let stub = Stub::start();
    let cluster = cluster(&stub, &[]).await;
    let definition = cluster.definition(2).await;
    let models = [
        "openai/rater",
        "openai-compatible/meta/rater-7b",
        "ollama/rater",
        "anthropic/rater",
        "google/rater",
        "mistral/rater",
        "mock/rater",
    ];
    let run = cluster.run(&definition, &models, json!({})).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 14, "{state:#}");
    let seen = stub.stats().await;
    let keys: Vec<(&str, u64)> = seen.keys.iter().map(|(key, calls)| (key.as_str(), *calls)).collect();
    assert_eq!(
        keys,
        [
            ("none", 2),
            ("sk-ant-the-secret-of-anthropic", 2),
            ("sk-the-secret-of-openai", 2),
            ("the-secret-of-google", 2),
            ("the-secret-of-mistral", 2),
            ("the-secret-of-the-gateway", 2),
        ]
    );
    let turns: Vec<Value> = sqlx::query_scalar(
        "select t.turns -> 0 from transcript t join lane l on l.id = t.lane_id where l.model like 'openai/%'",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    for turn in turns {
        assert_eq!((&turn["finishReason"], &turn["modelVersion"]), (&json!("stop"), &json!("rater-1")));
        assert!(turn["requestId"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{turn:#}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_provider_answers_decides_what_becomes_of_the_job() {
    let stub = Stub::start();
    let cluster = cluster(&stub, &[("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "1")]).await;
    let definition = cluster.definition(1).await;
    for (model, status, code, claims) in [
        ("openai/rater?failFirst=2&fail=server", "completed", None, 3),
        ("openai/rater?failFirst=1&fail=rate_limit&retryAfterMs=20", "completed", None, 2),
        ("openai/rater?fail=context_length", "failed", Some("context_length"), 1),
        ("openai/rater?finish=content_filter", "failed", Some("content_filter"), 1),
        ("anthropic/rater?fail=not_found", "failed", Some("not_found"), 1),
        ("openai/rater?empty=1", "failed", Some("invalid_response"), 2),
        ("openai/rater?broken=shape", "failed", Some("invalid_response"), 2),
        ("openai/rater?broken=drop", "failed", Some("network"), 4),
    ] {
        let run = cluster.run(&definition, &[model], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
        let (state, error, tries): (String, Option<String>, i32) = sqlx::query_as(
            "select j.state::text, j.error_code, j.claims
               from current_job j join lane l on l.id = j.lane_id where l.run_id = $1::uuid and l.model is not null",
        )
        .bind(&run)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        let seen = (state.as_str(), error.as_deref().filter(|_| state == "failed"), tries);
        assert_eq!(seen, (status, code, claims), "{model}: {:#?}", attempts(&cluster.db).await);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_model_waits_for_a_node_that_has_its_key() {
    let stub = Stub::start();
    let mut cluster = Cluster::start().await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["openai/rater", "mock/echo"], json!({})).await;
    let half = |state: &Value| state["progress"]["completed"] == 2;
    let state = cluster.until(&run, "half done", half).await;
    assert_eq!(state["progress"]["pending"], 2, "{state:#}");
    assert_eq!(stub.stats().await.accepted, 0);
    cluster.add_node(&[KEYS[0], ("OPENAI_BASE_URL", &stub.url())]).await;
    cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(stub.stats().await.accepted, 2);
    cluster.stop().await;
}
