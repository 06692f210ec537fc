//! A repeated startRun is harmless.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use runlane::domain::Role;
use serde_json::{Value, json};

use super::rows;
use crate::support::app::{Answer, Cluster};

const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) { id batchId sampleSeed } }";

async fn start(cluster: &Cluster, subject: &str, input: &Value) -> Answer {
    cluster.ask(subject, Role::User, START, json!({ "input": input })).await
}

#[track_caller]
fn id(answer: &Answer) -> String {
    answer.data()["startRun"]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn fifty_concurrent_starts_with_one_key_make_one_run() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(5).await;
    let input = json!({"definitionId": definition, "models": ["mock/echo"], "samplePercentage": 50, "idempotencyKey": "k"});
    let answers = join_all((0..50).map(|_| start(&cluster, "ada", &input))).await;
    let ids: BTreeSet<String> = answers.iter().map(id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let rows = rows(&cluster.db).await;
    assert_eq!((rows["run"], rows["lane"], rows["job"]), (1, 1, 3));
    let batch = &answers[0].data()["startRun"]["batchId"];
    for answer in &answers {
        assert_eq!(
            &answer.headers["x-batch-id"],
            batch.as_str().unwrap(),
            "the header is the run's, also of a repeat"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_input_is_compared_after_defaults() {
    let cluster = Cluster::api_only(&[]).await;
    let input = json!({"name": "d", "content": {"template": "Well?", "params": {"temperature": 0.5, "maxTokens": 9}}});
    let definition = super::created(&super::create(&cluster, &input).await);
    let short = json!({"definitionId": definition, "models": ["mock/echo"], "idempotencyKey": "k"});
    let first = id(&start(&cluster, "ada", &short).await);
    let same = [
        json!({"samplePercentage": 100, "priority": "NORMAL"}),
        json!({"params": {}, "metadata": null, "name": null, "sampleSeed": null, "maxConcurrency": null}),
        json!({"params": {"temperature": 0.5}}),
        json!({"params": {"temperature": 0.5, "maxTokens": 9, "seed": null}}),
        json!({"definitionId": definition.to_uppercase()}),
    ];
    for given in same {
        let mut input = short.clone();
        input.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        assert_eq!(id(&start(&cluster, "ada", &input).await), first, "{given}");
    }
    let before = rows(&cluster.db).await;
    let others = [
        json!({"samplePercentage": 99}),
        json!({"sampleSeed": 1}),
        json!({"priority": "HIGH"}),
        json!({"models": ["mock/rater"]}),
        json!({"models": ["mock/echo", "mock/rater"]}),
        json!({"params": {"temperature": 0.6}}),
        json!({"params": {"seed": 1}}),
        json!({"name": "n"}),
        json!({"experimentId": "e"}),
        json!({"metadata": {}}),
        json!({"maxConcurrency": 5}),
        json!({"definitionId": cluster.definition(1).await}),
    ];
    for given in others {
        let mut input = short.clone();
        input.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        let answer = start(&cluster, "ada", &input).await;
        assert_eq!(answer.code(), "CONFLICT", "{given}");
        assert!(answer.body["errors"][0]["message"].as_str().unwrap().contains(&first), "it names the run");
    }
    let after = rows(&cluster.db).await;
    assert_eq!((after["run"], after["job"]), (before["run"], before["job"]));
    cluster.stop().await;
}

#[tokio::test]
async fn keys_are_scoped_to_the_user_and_without_one_every_start_is_a_run() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let keyed = json!({"definitionId": definition, "models": ["mock/echo"], "idempotencyKey": "k"});
    let free = json!({"definitionId": definition, "models": ["mock/echo"]});
    let mut ids = BTreeSet::new();
    for (subject, input) in [("ada", &keyed), ("bob", &keyed), ("ada", &free), ("ada", &free)] {
        assert!(ids.insert(id(&start(&cluster, subject, input).await)));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_headers_name_the_batch_and_the_request() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let body = json!({"query": START, "variables": {"input": {"definitionId": definition, "models": ["mock/echo"]}}});
    let response = reqwest::Client::new()
        .post(format!("http://{}/graphql", cluster.address))
        .bearer_auth(cluster.token("ada", Role::User))
        .header("X-Request-ID", "request-of-mine")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-request-id"], "request-of-mine");
    let header = response.headers()["x-batch-id"].to_str().unwrap().to_owned();
    let run = response.json::<Value>().await.unwrap()["data"]["startRun"].clone();
    assert_eq!(run["batchId"], header.as_str());
    let kept: String = sqlx::query_scalar("select request_id from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(kept, "request-of-mine");
    let other = cluster.user("{ queueStatus { id } }", json!({})).await;
    assert!(other.headers.get("x-batch-id").is_none() && other.headers.contains_key("x-request-id"));
    cluster.stop().await;
}
