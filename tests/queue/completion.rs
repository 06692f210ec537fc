//! A run from its start to its analysis.

use serde_json::json;

use super::support::{assert_books_balance, jobs};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn ten_scenarios_times_three_models_are_thirty_jobs_and_all_complete() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(10).await;
    let models = ["mock/rater", "mock/echo", "mock/rater?other=1"];
    let run = cluster.run(&definition, &models, json!({})).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    let whole = json!({ "total": 30, "pending": 0, "active": 0, "completed": 30, "failed": 0, "cancelled": 0,
        "percentComplete": 100.0,
        "byModel": models.map(|m| json!({ "modelId": m, "total": 10, "pending": 0, "active": 0, "completed": 10, "failed": 0, "cancelled": 0 })) });
    assert_eq!(state["progress"], whole);
    let jobs = jobs(&cluster.db, &run).await;
    assert_eq!(jobs.len(), 30);
    assert!(jobs.iter().all(|j| j.state == "completed" && j.claims == 1), "{jobs:#?}");
    let transcripts: i64 = sqlx::query_scalar(
        "select count(distinct (l.model, t.scenario_id)) from transcript t join lane l on l.id = t.lane_id where l.run_id = $1::uuid",
    )
    .bind(&run)
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!(transcripts, 30, "one for each scenario and model");
    let state = cluster
        .until(&run, "analysed", |s| {
            s["analyses"].as_array().is_some_and(|a| a.iter().any(|a| a["status"] == "COMPLETED"))
        })
        .await;
    let analysis = &state["analyses"][0];
    assert_eq!(analysis["kind"], "BASIC");
    let coverage = ["expected", "used", "failed"].map(|key| analysis["coverage"][key].as_i64());
    assert_eq!(coverage, [Some(30), Some(30), Some(0)], "{analysis}");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
