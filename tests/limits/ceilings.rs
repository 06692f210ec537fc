//! No number of nodes exceeds a ceiling, what it leaves is used, and others do not suffer from it.

use chrono::{DateTime, Duration, Utc};
use serde_json::json;

use super::{limit, reasons, set_limit};
use crate::queue::support::{Attempt, assert_books_balance, attempts, quick, until_sql};
use crate::support::app::Cluster;

async fn four_nodes(settings: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::api_only(settings).await;
    for _ in 0..4 {
        cluster.add_node(&[]).await;
    }
    cluster
}

/// The most attempts that were in flight at one time.
fn most_at_once(attempts: &[Attempt]) -> i64 {
    let mut moments: Vec<(DateTime<Utc>, i64)> =
        attempts.iter().flat_map(|a| [(a.started_at, 1), (a.ended_at, -1)]).collect();
    // An end and a claim of one moment: the claim saw the end.
    moments.sort();
    moments
        .iter()
        .scan(0, |now, (_, step)| {
            *now += step;
            Some(*now)
        })
        .max()
        .unwrap_or(0)
}

/// The most attempts that were granted within this time.
fn most_within(attempts: &[Attempt], window: Duration) -> usize {
    let starts: Vec<DateTime<Utc>> = attempts.iter().map(|a| a.started_at).collect();
    (0..starts.len()).map(|i| starts[i..].partition_point(|s| *s < starts[i] + window)).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_together_keep_to_a_ceiling_of_jobs_in_flight_and_reach_it() {
    let cluster = four_nodes(&[]).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 5 })).await.data();
    let definition = cluster.definition(60).await;
    let models = ["mock/echo?delayMs=20", "mock/rater?delayMs=20"];
    let run = cluster.run(&definition, &models, json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let attempts = attempts(&cluster.db).await;
    assert_eq!(attempts.len(), 120, "a job that waits for a limit burns no attempt");
    assert_eq!(most_at_once(&attempts), 5);
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_narrowest_of_the_limits_counts_and_a_reached_one_costs_other_lanes_nothing() {
    let mut cluster = Cluster::api_only(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "6")])).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 100 })).await.data();
    set_limit(&cluster, json!({ "name": "mock/echo?delayMs=600000", "inFlight": 2 })).await.data();
    let definition = cluster.definition(8).await;
    let first = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({ "priority": "HIGH" })).await;
    let second = cluster.run(&definition, &["mock/echo?delayMs=600001"], json!({ "priority": "LOW" })).await;
    cluster.add_node(&[]).await;
    let active = |n| move |s: &serde_json::Value| s["progress"]["active"] == n;
    cluster.until(&first, "two run", active(2)).await;
    cluster.until(&second, "the other slots are used", active(4)).await;
    assert_eq!(
        reasons(&cluster, &first).await,
        ["The limit of 2 jobs at once for model mock/echo?delayMs=600000 is reached until one of them ends."]
    );
    assert_eq!(limit(&cluster, "mock").await["inFlight"], 6);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_ceiling_is_used_at_once_and_a_lowered_one_lets_nothing_start() {
    let mut cluster = Cluster::api_only(&quick(&[("RUNLANE_POLL_INTERVAL_MS", "600000")])).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 1 })).await.data();
    cluster.add_node(&[]).await;
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    let active = |n| move |s: &serde_json::Value| s["progress"]["active"] == n;
    cluster.until(&run, "one runs", active(1)).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 3 })).await.data();
    cluster.until(&run, "three run", active(3)).await;
    set_limit(&cluster, json!({ "name": "mock", "inFlight": 2 })).await.data();
    let jobs: Vec<i64> = sqlx::query_scalar("select id from current_job where state = 'active' order by id")
        .fetch_all(&cluster.db)
        .await
        .unwrap();
    for id in &jobs[..1] {
        let cancel = "mutation($id: ID!) { cancelJob(id: $id) { id } }";
        cluster.user(cancel, json!({ "id": id.to_string() })).await.data();
    }
    cluster.until(&run, "two run", active(2)).await;
    assert_eq!(cluster.state(&run).await["progress"]["pending"], 3, "no third one started");
    set_limit(&cluster, json!({ "name": "mock" })).await.data();
    cluster.until(&run, "all run", active(5)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_together_keep_to_a_rate_and_use_it() {
    let cluster = four_nodes(&[]).await;
    // A minute's 300 fill the bucket of 15 at five a second.
    set_limit(&cluster, json!({ "name": "mock/echo", "requestsPerMinute": 300 })).await.data();
    let definition = cluster.definition(40).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let attempts = attempts(&cluster.db).await;
    assert_eq!(attempts.len(), 40);
    for (window, most) in [(500, 18), (1_000, 21), (2_000, 26)] {
        let n = most_within(&attempts, Duration::milliseconds(window));
        assert!(n <= most, "{n} within {window} ms");
    }
    let took = (attempts[39].started_at - attempts[0].started_at).num_milliseconds();
    assert!(
        (4_900..15_000).contains(&took),
        "25 at five a second take 5 s, and a claim that polls more: {took} ms"
    );
    assert_eq!(limit(&cluster, "mock/echo").await["requests"], 40);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sixty_seconds_see_more_than_a_minutes_allowance() {
    let mut cluster = Cluster::api_only(&[]).await;
    set_limit(&cluster, json!({ "name": "mock", "requestsPerMinute": 100 })).await.data();
    let granted = |ago: i32, n: i32| {
        let sql = "insert into rate_grant select id, date_trunc('second', clock_timestamp()) - $1 * interval '1 second', $2, 0
                     from rate_limit";
        sqlx::query(sql).bind(ago).bind(n)
    };
    granted(40, 97).execute(&cluster.db).await.unwrap();
    sqlx::query("update rate_limit set requests_left = 5").execute(&cluster.db).await.unwrap();
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.add_node(&[]).await;
    cluster.until(&run, "three more", |s| s["progress"]["completed"] == 3).await;
    sqlx::query("update rate_limit set requests_left = 5").execute(&cluster.db).await.unwrap();
    let why = reasons(&cluster, &run).await;
    assert!(
        why[0].starts_with(
            "The limit of 100 requests a minute for provider mock is reached; there is room again at"
        ),
        "{why:?}"
    );
    // The rest of the minute passes.
    sqlx::query("update rate_grant set second = second - interval '30 seconds' where requests = 97")
        .execute(&cluster.db)
        .await
        .unwrap();
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_taken_as_expected_and_corrected_when_they_are_known() {
    let mut cluster = Cluster::api_only(&[]).await;
    set_limit(&cluster, json!({ "name": "mock", "tokensPerMinute": 20_000 })).await.data();
    let definition = cluster.definition(3).await;
    // 7 tokens of prompt and at most 993 of answer; an echo uses 7 and 7.
    let run = cluster.run(&definition, &["mock/echo"], json!({ "params": { "maxTokens": 993 } })).await;
    let expected: i32 = sqlx::query_scalar("select tokens from lane").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(expected, 7 + 500, "no more than what is usual");
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    let used: i64 = sqlx::query_scalar(
        "select sum((usage ->> 'input')::bigint + (usage ->> 'output')::bigint)::bigint from transcript",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert!(used < 100, "{used}");
    assert_eq!(limit(&cluster, "mock").await["tokens"], used);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_tokens_as_for_calls() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    set_limit(&cluster, json!({ "name": "mock", "tokensPerMinute": 1_000 })).await.data();
    let definition = cluster.definition(3).await;
    // Each is expected to take 507, so the first leaves too little for a second.
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.add_node(&[]).await;
    let active = |n| move |s: &serde_json::Value| s["progress"]["active"] == n;
    cluster.until(&run, "one runs", active(1)).await;
    let why = reasons(&cluster, &run).await;
    assert!(
        why.iter().any(|w| w.starts_with("The limit of 1000 tokens a minute for provider mock is reached")),
        "{why:?}"
    );
    assert_eq!(limit(&cluster, "mock").await["tokens"], 507);
    set_limit(&cluster, json!({ "name": "mock", "tokensPerMinute": 1_000_000 })).await.data();
    cluster.until(&run, "all run", active(3)).await;
    cluster.stop().await;
}

/// A definition of so many scenarios whose conversations have three turns.
async fn conversations(cluster: &Cluster, scenarios: usize) -> String {
    let create = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }";
    let scenarios: Vec<_> =
        (0..scenarios).map(|i| json!({ "key": i.to_string(), "prompt": "Well?" })).collect();
    let content = json!({ "followups": ["And?", "And then?"] });
    let input = json!({ "name": "talk", "content": content, "scenarios": scenarios });
    let answer = cluster.user(create, json!({ "input": input })).await;
    answer.data()["createDefinition"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_charged_for_all_its_calls() {
    let mut cluster = Cluster::api_only(&[]).await;
    set_limit(&cluster, json!({ "name": "mock", "requestsPerMinute": 100 })).await.data();
    let definition = conversations(&cluster, 1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let short = cluster.run(&definition, &["mock/echo"], json!({ "params": { "maxTurns": 2 } })).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    cluster.until_status(&short, "COMPLETED").await;
    until_sql(&cluster.db, "charged", "select sum(requests) = 5 from rate_grant").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_no_more_conversations_than_all_their_calls_allow() {
    let mut cluster = Cluster::api_only(&[]).await;
    // A bucket of three calls: of one conversation.
    set_limit(&cluster, json!({ "name": "mock", "requestsPerMinute": 60 })).await.data();
    let definition = conversations(&cluster, 3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    let mut claims: Vec<_> = attempts(&cluster.db).await.iter().map(|a| a.started_at).collect();
    claims.dedup();
    assert_eq!(claims.len(), 3, "each in a claim of its own: {claims:?}");
    cluster.stop().await;
}
