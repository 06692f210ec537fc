//! What a run would take: told before it is started, and honest about what it is based on.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{amount, mock_prices};
use crate::support::app::Cluster;

const ESTIMATE: &str = "query($input: StartRunInput!) { estimateRun(input: $input) {
    jobs inputTokens outputTokens costUsd { p50 p90 } durationSeconds { p50 p90 } basis
    byModel { modelId jobs inputTokens outputTokens costUsd sampleSize } } }";

async fn estimate(cluster: &Cluster, input: Value) -> Value {
    cluster.user(ESTIMATE, json!({ "input": input })).await.data()["estimateRun"].clone()
}

/// Waits until maintenance has drawn the statistic of a model from so many probes.
async fn until_known(cluster: &Cluster, definition: &str, model: &str, probes: i64) {
    let input = json!({ "definitionId": definition, "models": [model] });
    let deadline = tokio::time::Instant::now() + crate::support::app::PATIENCE;
    while estimate(cluster, input.clone()).await["byModel"][0]["sampleSize"].as_i64() < Some(probes) {
        assert!(tokio::time::Instant::now() < deadline, "{model} is not known");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_anything_has_run_tokens_and_cost_are_known_and_the_duration_is_not() {
    let prices = mock_prices("10", "100");
    let cluster = Cluster::api_only(&[("RUNLANE_PRICES_FILE", prices.to_str().unwrap())]).await;
    let definition = cluster.definition(10).await;
    let input = json!({ "definitionId": definition, "models": ["mock/echo", "mock/rater"], "params": { "maxTokens": 50 } });
    let told = estimate(&cluster, input).await;
    // "Rate option 0 from 1 to 5." has 26 bytes.
    assert_eq!(
        (told["jobs"].as_i64(), told["inputTokens"].as_i64(), told["outputTokens"].as_i64()),
        (Some(20), Some(140), Some(1_000))
    );
    assert_eq!(amount(&told["costUsd"]["p50"]), Decimal::new(1014, 4), "{told}");
    assert_eq!(amount(&told["costUsd"]["p90"]), Decimal::new(1521, 4), "assumed: half as much again");
    assert_eq!(told["durationSeconds"], Value::Null);
    let basis = told["basis"].as_str().unwrap();
    assert!(
        basis.contains("no probe of mock/echo, mock/rater has finished")
            && basis.contains("only 0 finished runs"),
        "{basis}"
    );
    let wrong = cluster
        .user(ESTIMATE, json!({ "input": { "definitionId": definition, "models": ["nobody/x"] } }))
        .await;
    assert_eq!(wrong.refusal()["field"], "input.models");
    let runs: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(runs, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_still_takes_is_told_before_its_first_probe_has_finished() {
    let cluster =
        Cluster::with(&[("RUNLANE_MAINTENANCE_INTERVAL", "50ms"), ("RUNLANE_WORKER_CONCURRENCY", "2")]).await;
    let definition = cluster.definition(4).await;
    let model = "mock/rater?delayMs=1500";
    let first = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&first, "COMPLETED").await;
    until_known(&cluster, &definition, model, 4).await;
    let told = estimate(&cluster, json!({ "definitionId": definition, "models": [model] })).await;
    let p50 = told["durationSeconds"]["p50"].as_f64().unwrap();
    // Two rounds; the first ones have waited for the worker's start as well.
    assert!((3.0..30.0).contains(&p50), "two rounds of 1.5 s at least: {told}");
    assert_eq!(told["costUsd"], Value::Null, "it has no price");
    let run = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&run, "RUNNING").await;
    let query = "query($id: ID!) { run(id: $id) { estimatedTimeRemaining progress { completed } } }";
    let seen = cluster.user(query, json!({ "id": run })).await.data()["run"].clone();
    assert_eq!(seen["progress"]["completed"], 0);
    let remaining = seen["estimatedTimeRemaining"].as_i64().unwrap();
    assert!((3..=30).contains(&remaining), "{seen}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_that_is_tightest_decides_how_long_a_run_takes() {
    let cluster =
        Cluster::with(&[("RUNLANE_MAINTENANCE_INTERVAL", "50ms"), ("RUNLANE_WORKER_CONCURRENCY", "8")]).await;
    let definition = cluster.definition(20).await;
    let model = "mock/rater?delayMs=1500";
    let first = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&first, "COMPLETED").await;
    until_known(&cluster, &definition, model, 20).await;
    let input = json!({ "definitionId": definition, "models": [model] });
    let told = async || {
        let told = estimate(&cluster, input.clone()).await;
        (told["durationSeconds"]["p50"].as_f64().unwrap(), told["basis"].as_str().unwrap().to_owned())
    };
    let (unlimited, basis) = told().await;
    assert!(unlimited < 30.0 && !basis.contains("The limit on"), "{unlimited}: {basis}");
    let limit = async |name: &str, ceilings: Value| {
        let mutation =
            "mutation($name: String!, $inFlight: Int, $requestsPerMinute: Int, $tokensPerMinute: Int) {
            setLimit(name: $name, inFlight: $inFlight, requestsPerMinute: $requestsPerMinute,
                     tokensPerMinute: $tokensPerMinute) { name } }";
        let mut variables = ceilings;
        variables["name"] = json!(name);
        cluster.admin(mutation, variables).await.data();
    };
    limit("mock", json!({ "requestsPerMinute": 30 })).await;
    let (p50, basis) = told().await;
    assert!((40.0..50.0).contains(&p50), "20 calls at 30 a minute, and the last one's time: {p50}");
    assert!(basis.contains("The limit on mock decides") && basis.contains("requestsPerMinute 30"), "{basis}");
    limit(model, json!({ "requestsPerMinute": 2 })).await;
    let (p50, basis) = told().await;
    assert!((600.0..610.0).contains(&p50), "{p50}");
    assert!(basis.contains(&format!("The limit on {model} decides")), "{basis}");
    let run = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&run, "RUNNING").await;
    let foretold: f64 = sqlx::query_scalar("select expected_ms from run where id = $1::uuid")
        .bind(&run)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    assert!((600_000.0..610_000.0).contains(&foretold), "what later forecasts are corrected by: {foretold}");
    let query = "query($id: ID!) { run(id: $id) { estimatedTimeRemaining progress { completed } } }";
    let seen = cluster.user(query, json!({ "id": run })).await.data()["run"].clone();
    assert_eq!(seen["progress"]["completed"], 0, "its first probe runs still");
    assert!((590..=610).contains(&seen["estimatedTimeRemaining"].as_i64().unwrap()), "{seen}");
    let (p50, basis) = told().await;
    assert!(p50 > 1_200.0 && basis.contains("shared with 1 other runs"), "its half: {p50} {basis}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_of_ten_runs_end_within_p90() {
    let cluster =
        Cluster::with(&[("RUNLANE_MAINTENANCE_INTERVAL", "50ms"), ("RUNLANE_WORKER_CONCURRENCY", "6")]).await;
    let definition = cluster.definition(40).await;
    let models = ["mock/rater?delayMs=10", "mock/rater?delayMs=25", "mock/echo?delayMs=60"];
    for model in models {
        let run = cluster.run(&definition, &[model], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
        until_known(&cluster, &definition, model, 40).await;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut within, mut measured) = (0, 0);
    for i in 0..70 {
        let chosen: Vec<&str> = models.iter().copied().take(rng.random_range(1..=3)).collect();
        let more = json!({ "samplePercentage": rng.random_range(20..=100), "sampleSeed": i });
        let mut input = json!({ "definitionId": definition, "models": chosen });
        input["samplePercentage"] = more["samplePercentage"].clone();
        let p90 = estimate(&cluster, input).await["durationSeconds"]["p90"].as_f64().unwrap();
        let run = cluster.run(&definition, &chosen, more).await;
        cluster.until_status(&run, "COMPLETED").await;
        let took: f64 = sqlx::query_scalar(
            "select extract(epoch from completed_at - started_at)::float8 from run where id = $1::text::uuid",
        )
        .bind(&run)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        // The first ones tell how far forecasts are off.
        if i >= 20 {
            measured += 1;
            within += usize::from(took <= p90);
        }
    }
    let part = within * 100 / measured;
    println!("{within} of {measured} runs ended within p90: {part} %");
    // Of 50 runs at 90 % each, 3 in a million times fewer than 70 % would.
    assert!(part >= 70, "{within} of {measured}");
    cluster.stop().await;
}
