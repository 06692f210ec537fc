//! What attempts cost counts, whatever became of them.

use runlane::domain::{AttemptOutcome, JobKind};
use rust_decimal::Decimal;
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::support::app::fresh_database;
use crate::support::direct::{Direct, end};

const PROBE: JobKind = JobKind::ProbeScenario;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_attempts_used_costs_the_run_as_well_to_the_last_digit() {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(6).await;
    let node = direct.node().await;
    direct.start(definition, &["mock/echo"], None).await;
    sqlx::query("update lane set pricing = $1")
        .bind(
            json!({ "inputPerMillion": "0.000000000001", "outputPerMillion": "2", "reasoningPerMillion": null,
                      "cacheReadPerMillion": null, "cacheWritePerMillion": "1" }),
        )
        .execute(&direct.db)
        .await
        .unwrap();
    let usage = json!({ "input": 7, "output": 1, "reasoning": 2, "cacheRead": 0, "cacheWrite": 3 });
    // 7e-12 + 1×2 + 2×2 + 3×1, over a million.
    let each = decimal("0.000009000000000007");
    let outcomes = [
        AttemptOutcome::Failed,
        AttemptOutcome::Retried,
        AttemptOutcome::Throttled,
        AttemptOutcome::Lost,
        AttemptOutcome::Cancelled,
    ];
    let claims = direct.claim(node, PROBE, 6).await;
    for (&claim, &outcome) in claims.iter().zip(&outcomes) {
        let mut end = end(claim, PROBE, outcome);
        end.usage = Some(to_raw_value(&usage).unwrap());
        assert!(direct.end(node, end).await.is_some());
    }
    // A transcript says itself what it cost.
    direct.end(node, end(claims[5], PROBE, AttemptOutcome::Completed)).await.unwrap();
    let (lane, attempts): (Decimal, Decimal) = sqlx::query_as(
        "select (select cost_usd from lane where model is not null), (select sum(cost_usd) from attempt)",
    )
    .fetch_one(&direct.db)
    .await
    .unwrap();
    assert_eq!(attempts, each * Decimal::from(5));
    assert_eq!(lane, attempts + decimal("0.001"));
    assert_eq!(direct.violations(false, &[]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usage_has_no_cost_where_the_price_of_a_part_is_unknown() {
    let direct = Direct::on(&fresh_database().await).await;
    let prices = json!({ "inputPerMillion": "1", "outputPerMillion": "2", "cacheReadPerMillion": null });
    let cases = [
        (json!({ "input": 5 }), Some("0.000005")),
        (json!({ "input": 5, "cacheRead": 1 }), None),
        (json!({ "input": 5, "cacheRead": 0 }), Some("0.000005")),
        (json!({}), Some("0")),
        (json!(null), None),
        (json!({ "input": "many" }), Some("0")),
    ];
    for (usage, expected) in cases {
        let cost: Option<Decimal> = sqlx::query_scalar("select usage_cost($1, $2)")
            .bind(&usage)
            .bind(&prices)
            .fetch_one(&direct.db)
            .await
            .unwrap();
        assert_eq!(cost, expected.map(decimal), "{usage}");
    }
}
