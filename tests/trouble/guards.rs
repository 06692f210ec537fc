//! Limits against amplification: each refuses the whole, says why, and leaves nothing half stored.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::support::{assert_exact, number};
use crate::support::app::{Answer, Cluster};

async fn start(cluster: &Cluster, who: &str, definition: &str, more: Value) -> Answer {
    let mut input = json!({ "definitionId": definition, "models": ["mock/echo"] });
    for (key, value) in more.as_object().into_iter().flatten() {
        input[key] = value.clone();
    }
    let start = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";
    cluster.ask(who, Role::User, start, json!({ "input": input })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_more_jobs_waiting_than_allowed_though_asked_for_at_once() {
    let cluster = Cluster::api_only(&[("RUNLANE_USER_WAITING_JOBS_MAX", "10")]).await;
    let definition = cluster.definition(4).await;
    let key = json!({ "idempotencyKey": "once" });
    let first = start(&cluster, "ada", &definition, key.clone()).await;
    let asked = (0..8).map(|_| start(&cluster, "ada", &definition, json!({})));
    let answers = futures_util::future::join_all(asked).await;
    let (started, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.body.get("errors").is_none());
    assert_eq!((started.len(), refused.len()), (1, 7), "8 of 10 jobs wait");
    for answer in refused {
        let extensions = answer.refusal();
        assert_eq!(
            (&extensions["code"], &extensions["jobs"], &extensions["waiting"], &extensions["limit"]),
            (&json!("QUEUE_ERROR"), &json!(4), &json!(8), &json!(10)),
        );
    }
    assert_eq!(number(&cluster.db, "select count(*) from run").await, 2);
    assert_eq!(number(&cluster.db, "select count(*) from lane").await, 2);
    assert_eq!(number(&cluster.db, "select count(*) from current_job").await, 8);
    // What exists is still found by its key, and another user has a limit of his own.
    assert_eq!(start(&cluster, "ada", &definition, key).await.data(), first.data());
    start(&cluster, "bob", &definition, json!({})).await.data();
    // Room again when some do not wait any more.
    let id = &first.data()["startRun"]["id"];
    cluster.user("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": id })).await.data();
    start(&cluster, "ada", &definition, json!({})).await.data();
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_whose_jobs_would_be_too_large_is_refused_whole() {
    let cluster = Cluster::api_only(&[("RUNLANE_JOB_PAYLOAD_MAX_BYTES", "2000")]).await;
    let create = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }";
    let input = |prompt: usize| {
        json!({ "input": {
            "name": "large", "content": { "preamble": "p".repeat(900), "followups": ["f".repeat(500)] },
            "scenarios": [{ "key": "a", "prompt": "fine" }, { "key": "b", "prompt": "x".repeat(prompt) }],
        } })
    };
    // 900 + 500 + the key's 1 + 2 of its empty dimensions.
    let refused = cluster.user(create, input(598)).await;
    assert_eq!(refused.code(), "VALIDATION_ERROR");
    assert_eq!(refused.refusal()["field"], "input.scenarios[1]");
    assert!(
        refused.body["errors"][0]["message"].as_str().unwrap().contains("2001 bytes"),
        "{}",
        refused.body
    );
    assert_eq!(
        number(&cluster.db, "select (select count(*) from definition) + (select count(*) from scenario)")
            .await,
        0
    );
    cluster.user(create, input(597)).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_too_large_fails_its_own_job_and_no_other() {
    let cluster = Cluster::with(&[
        ("RUNLANE_TRANSCRIPT_MAX_BYTES", "2000"),
        ("RUNLANE_ANALYSIS_MAX_BYTES", "1024"),
        ("RUNLANE_COMPLETION_BATCH_MAX_BYTES", "3000"),
        ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "10"),
        ("RUNLANE_RETRY_BASE_MS_ANALYZE_BASIC", "10"),
    ])
    .await;
    let scenarios: Vec<Value> = (0..12)
        .map(|i| json!({ "key": format!("s{i:02}"), "prompt": if i == 5 { "x".repeat(3_000) } else { format!("say {i}") } }))
        .collect();
    let input = json!({ "input": { "name": "echo", "content": {}, "scenarios": scenarios } });
    let create = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }";
    let made = cluster.user(create, input).await;
    let definition = made.data()["createDefinition"]["id"].as_str().unwrap();
    let run = cluster.run(definition, &["mock/echo"], json!({})).await;
    let state = cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "FAILED").await;
    assert_eq!(
        (&state["progress"]["completed"], &state["progress"]["failed"]),
        (&json!(11), &json!(1)),
        "{state:#}"
    );
    let too_large = |message: &str| message.contains("bytes, and at most") && message.ends_with("are kept");
    let error = &state["analyses"][0]["error"];
    assert!(
        error["code"] == "invalid_response" && too_large(error["message"].as_str().unwrap()),
        "{state:#}"
    );
    let (code, message, tries, usage): (String, String, i32, Option<Value>) = sqlx::query_as(
        "select j.error_code, j.error_message, j.claims, a.usage
           from current_job j join attempt a on a.job_id = j.id and a.number = j.claims
          where j.state = 'failed' and j.scenario_id is not null",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert!(code == "invalid_response" && too_large(&message), "{code}: {message}");
    assert_eq!(tries, 2, "tried again once");
    assert!(usage.is_some_and(|u| u["input"].as_i64() > Some(0)), "what was paid is on record");
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}
