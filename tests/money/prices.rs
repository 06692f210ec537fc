//! The price table: seen, replaced, and fixed for a run when it is started.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{mock_prices, price_file};
use crate::support::app::Cluster;

/// What a usage costs at these prices per million.
fn cost(usage: &Value, input: i64, output: i64) -> Decimal {
    let tokens = |part: &str| Decimal::from(usage[part].as_i64().unwrap_or(0));
    let written = tokens("output") + tokens("reasoning");
    (tokens("input") * Decimal::from(input) + written * Decimal::from(output)) / Decimal::from(1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_costs_what_the_table_of_its_start_says_also_when_a_later_table_says_otherwise() {
    let (then, now) = (mock_prices("3", "7"), mock_prices("3000", "7000"));
    let mut cluster = Cluster::api_only(&[("RUNLANE_PRICES_FILE", then.to_str().unwrap())]).await;
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/rater"], json!({})).await;
    cluster.add_node(&[("RUNLANE_PRICES_FILE", now.to_str().unwrap())]).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    let query = "query($id: ID!) { run(id: $id) {
        transcripts { edges { node { usage costUsd } } } progress { byModel { costUsd pricing } } } }";
    let answer = cluster.user(query, json!({ "id": run })).await;
    let nodes = answer.data()["run"]["transcripts"]["edges"].as_array().unwrap().clone();
    let mut sum = Decimal::ZERO;
    for node in nodes.iter().map(|e| &e["node"]) {
        let expected = cost(&node["usage"], 3, 7);
        assert!(expected > Decimal::ZERO, "{node}");
        assert_eq!(node["costUsd"].as_str().unwrap().parse::<Decimal>().unwrap(), expected, "{node}");
        sum += expected;
    }
    assert_eq!(nodes.len(), 5);
    let of_model = &answer.data()["run"]["progress"]["byModel"][0];
    assert_eq!(
        (&of_model["costUsd"], &of_model["pricing"]["outputPerMillion"]),
        (&state["costUsd"], &json!("7"))
    );
    assert_eq!(state["costUsd"].as_str().unwrap().parse::<Decimal>().unwrap(), sum);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_price_costs_null_and_not_zero() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/rater"], json!({})).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["costUsd"], Value::Null);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_shows_which_row_a_model_takes() {
    let file = price_file(
        "[[price]]\nmodels = [\"mock/*\"]\ninput = \"1\"\noutput = \"2\"\n\
         [[price]]\nmodels = [\"mock/echo\"]\ninput = \"0.25\"\noutput = \"1\"\ncacheRead = \"0.025\"\n",
    );
    let cluster = Cluster::api_only(&[("RUNLANE_PRICES_FILE", file.to_str().unwrap())]).await;
    let query = "query($model: String) { prices(model: $model) {
        pattern inputPerMillion reasoningPerMillion cacheReadPerMillion asOf source } }";
    let all = cluster.user(query, json!({})).await.data()["prices"].clone();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let one = cluster.user(query, json!({ "model": "mock/echo" })).await.data()["prices"].clone();
    assert_eq!(
        one,
        json!([{ "pattern": "mock/echo", "inputPerMillion": "0.25", "reasoningPerMillion": null,
                 "cacheReadPerMillion": "0.025", "asOf": "2026-01-31", "source": "the test" }])
    );
    let none = cluster.user(query, json!({ "model": "openai/gpt-4o" })).await.data()["prices"].clone();
    assert_eq!(none, json!([]), "the file replaces the whole table");
    let wrong = cluster.user(query, json!({ "model": "gpt" })).await;
    assert_eq!(wrong.refusal()["field"], "model");
    cluster.stop().await;
}
