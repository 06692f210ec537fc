//! A budget is kept, over all nodes.

use std::time::Duration;

use runlane::domain::{AttemptOutcome, JobKind};
use rust_decimal::Decimal;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{amount, claimed_together, mock_prices, violations};
use crate::support::app::{Cluster, fresh_database};
use crate::support::direct::{Direct, end};

const PROBE: JobKind = JobKind::ProbeScenario;
const MONEY: &str = "query($id: ID!) { run(id: $id) { status haltedBecause costUsd
    budget { usd onBudget spentUsd reservedUsd leftUsd } progress { pending active cancelled }
    jobs(first: 100, filter: { status: [PENDING] }) { edges { node { waitingBecause } } } } }";
const SET: &str = "mutation($id: ID!, $usd: Money) { setRunBudget(runId: $id, budgetUsd: $usd) { status } }";
const RESUME: &str = "mutation($id: ID!) { resumeRun(id: $id) { status haltedBecause } }";

/// One node that serves and four that execute, with the mock's price. Answers are expected to have so many tokens.
async fn five_nodes(expected_output_tokens: &str) -> Cluster {
    let prices = mock_prices("1000", "1000");
    let mut cluster = Cluster::api_only(&[
        ("RUNLANE_PRICES_FILE", prices.to_str().unwrap()),
        ("RUNLANE_EXPECTED_OUTPUT_TOKENS", expected_output_tokens),
        ("RUNLANE_WORKER_CONCURRENCY", "4"),
    ])
    .await;
    for _ in 0..4 {
        cluster.add_node(&[]).await;
    }
    cluster
}

async fn money(cluster: &Cluster, run: &str) -> Value {
    cluster.user(MONEY, json!({ "id": run })).await.data()["run"].clone()
}

/// Waits until a run has this status and nothing of it runs.
async fn until_at_rest(cluster: &Cluster, run: &str, status: &str) -> Value {
    let rests = |state: &Value| state["status"] == status && state["progress"]["active"] == 0;
    cluster.until(run, status, rests).await;
    money(cluster, run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_pauses_before_its_budget_is_overspent_and_goes_on_with_a_larger_one() {
    let cluster = five_nodes("100").await;
    let definition = cluster.definition(60).await;
    let free = cluster.run(&definition, &["mock/rater"], json!({})).await;
    let cost = amount(&cluster.until_status(&free, "COMPLETED").await["costUsd"]);
    // A third of what it needs, with what is set aside for the last.
    let budget = cost / Decimal::from(3) + Decimal::new(2, 1);
    let run = cluster.run(&definition, &["mock/rater"], json!({ "budgetUsd": budget.to_string() })).await;
    let state = until_at_rest(&cluster, &run, "PAUSED").await;
    let (spent, left) = (amount(&state["budget"]["spentUsd"]), amount(&state["budget"]["leftUsd"]));
    assert!(spent > Decimal::ZERO && spent <= budget, "{state:#}");
    assert_eq!((amount(&state["budget"]["usd"]), left), (budget.normalize(), budget - spent), "{state:#}");
    assert!(state["haltedBecause"].as_str().unwrap().starts_with("the budget of $"), "{state:#}");
    let waits = &state["jobs"]["edges"][0]["node"]["waitingBecause"];
    assert!(waits.as_str().unwrap().contains("the budget of $"), "{state:#}");

    let refused = cluster.user(RESUME, json!({ "id": run })).await;
    assert_eq!(refused.code(), "CONFLICT");
    cluster.user(SET, json!({ "id": run, "usd": (cost + cost).to_string() })).await.data();
    let resumed = cluster.user(RESUME, json!({ "id": run })).await.data()["resumeRun"].clone();
    assert_eq!(resumed, json!({ "status": "RUNNING", "haltedBecause": null }));
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(amount(&done["costUsd"]), cost, "the same probes cost the same");
    assert_eq!(violations(&cluster).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_probes_cost_more_than_expected_no_more_is_overspent_than_was_in_flight() {
    let cluster = five_nodes("1").await;
    let definition = cluster.definition(80).await;
    // The first ones are taken for far cheaper than they are.
    let run =
        cluster.run(&definition, &["mock/rater"], json!({ "budgetUsd": "0.2", "onBudget": "STOP" })).await;
    let state = until_at_rest(&cluster, &run, "FAILED").await;
    let finished = cluster.state(&run).await["progress"]["completed"].as_i64().unwrap();
    let spent = amount(&state["costUsd"]);
    let each = spent / Decimal::from(finished);
    let slots = Decimal::from(4 * 4);
    assert!(spent <= Decimal::new(2, 1) + slots * each, "{spent} for {finished}: {state:#}");
    assert!(state["progress"]["cancelled"].as_i64().unwrap() > 0, "{state:#}");
    assert!(state["haltedBecause"].as_str().unwrap().contains("is used up"), "{state:#}");
    // The end of a run has it analysed, also this one.
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    assert_eq!(violations(&cluster).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_cannot_be_kept_is_refused_and_starts_nothing() {
    let prices =
        super::price_file("[[price]]\nmodels = [\"mock/rater\"]\ninput = \"1\"\noutput = \"1000\"\n");
    let cluster = Cluster::api_only(&[("RUNLANE_PRICES_FILE", prices.to_str().unwrap())]).await;
    let definition = cluster.definition(2).await;
    let models = ["mock/rater", "mock/echo", "mock/other"];
    let answer = cluster.start_run(&definition, &models, json!({ "budgetUsd": "100" })).await;
    assert_eq!((answer.code(), &answer.refusal()["field"]), ("VALIDATION_ERROR", &json!("input.budgetUsd")));
    let message = answer.refusal()["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("mock/echo, mock/other") && message.contains("RUNLANE_PRICES_FILE"),
        "{message}"
    );
    let answer = cluster.start_run(&definition, &["mock/rater"], json!({ "budgetUsd": "0.1" })).await;
    assert!(
        answer.refusal()["errors"][0]["message"].as_str().unwrap().contains("maxTokens"),
        "{}",
        answer.body
    );
    let count: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(count, 0);
    let run = cluster.run(&definition, &["mock/rater", "mock/echo"], json!({})).await;
    let answer = cluster.user(SET, json!({ "id": run, "usd": "5" })).await;
    assert_eq!((answer.code(), &answer.refusal()["field"]), ("VALIDATION_ERROR", &json!("budgetUsd")));
    let answer = cluster.user(SET, json!({ "id": run, "usd": "-5" })).await;
    assert_eq!(answer.code(), "VALIDATION_ERROR");
    cluster.stop().await;
}

/// A run of two models, each probe of which is expected to cost a cent, with this budget.
async fn budgeted(direct: &Direct, scenarios: usize, usd: &str) -> Uuid {
    let definition = direct.definition(scenarios).await;
    let run = direct.start(definition, &["mock/echo", "mock/rater"], None).await;
    sqlx::query("update lane set estimate_usd = 0.01, budget_usd = $1::text::numeric, is_guarded = true where run_id = $2")
        .bind(usd)
        .bind(run)
        .execute(&direct.db)
        .await
        .unwrap();
    sqlx::query("update run set budget_usd = $1::text::numeric where id = $2")
        .bind(usd)
        .bind(run)
        .execute(&direct.db)
        .await
        .unwrap();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_claim_at_once_share_one_budget() {
    let direct = Direct::on(&fresh_database().await).await;
    let run = budgeted(&direct, 20, "0.155").await;
    sqlx::query("update lane set model = 'openai/rater' where model = 'mock/rater'")
        .execute(&direct.db)
        .await
        .unwrap();
    assert_eq!(claimed_together(&direct).await, (8, 7), "fifteen cents and a half");
    // However many ask, one lane for all of them.
    direct.force(run, runlane::store::RunChange::Cancel(runlane::domain::CancelMode::Graceful)).await;
    budgeted(&direct, 20, "0.155").await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(direct.node().await);
    }
    let claims = futures_util::future::join_all(nodes.iter().map(|&node| direct.claim(node, PROBE, 8))).await;
    let mut claimed: usize = claims.iter().map(Vec::len).sum();
    // Whoever was told to look again at once does.
    for &node in &nodes {
        claimed += direct.claim(node, PROBE, 8).await.len();
    }
    assert_eq!(claimed, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_cheaper_makes_room_and_what_is_dearer_takes_it() {
    let direct = Direct::on(&fresh_database().await).await;
    let node = direct.node().await;
    let run = budgeted(&direct, 20, "0.05").await;
    let first = direct.claim(node, PROBE, 9).await;
    assert_eq!(first.len(), 5);
    let asked = direct.store.claim_jobs(node, &[(PROBE, 9)]).await.unwrap();
    assert!(asked.claims().is_empty(), "all of it is set aside: {asked:?}");
    assert_ne!(asked.look_after, Some(Duration::ZERO), "it would ask again and again");
    // A tenth of a cent, as its transcript says.
    direct.end(node, end(first[0], PROBE, AttemptOutcome::Completed)).await.unwrap();
    assert_eq!(direct.claim(node, PROBE, 9).await.len(), 0, "0.9 cents are left");
    direct.end(node, end(first[1], PROBE, AttemptOutcome::Completed)).await.unwrap();
    assert_eq!(direct.claim(node, PROBE, 9).await.len(), 1, "1.8 cents are left");
    let mut dear = end(first[2], PROBE, AttemptOutcome::Retried);
    dear.usage = Some(to_raw_value(&json!({ "input": 45_000 })).unwrap());
    sqlx::query("update lane set pricing = $1 where run_id = $2")
        .bind(json!({ "inputPerMillion": "1", "outputPerMillion": "1" }))
        .bind(run)
        .execute(&direct.db)
        .await
        .unwrap();
    direct.end(node, dear).await.unwrap();
    let (status, reason): (String, String) =
        sqlx::query_as("select status::text, halt_reason from run where id = $1")
            .bind(run)
            .fetch_one(&direct.db)
            .await
            .unwrap();
    assert_eq!(status, "PAUSED", "{reason}");
    assert!(reason.contains("$0.047 spent"), "{reason}");
    assert_eq!(direct.violations(false, &[]).await, []);
}
