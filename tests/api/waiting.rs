//! Every waiting job says why it waits.

use serde_json::{Value, json};

use super::{control, of_run};
use crate::support::app::Cluster;

/// The waiting jobs of a run, oldest first.
async fn waiting(cluster: &Cluster, run: &str) -> Vec<Value> {
    let fields =
        "jobs(first: 100, filter: {status: [PENDING]}) { nodes { modelId runAt attempt waitingBecause } }";
    let mut jobs = of_run(cluster, run, fields).await["jobs"]["nodes"].as_array().unwrap().clone();
    jobs.reverse();
    jobs
}

async fn reasons(cluster: &Cluster, run: &str) -> Vec<String> {
    super::texts(&json!(waiting(cluster, run).await), "waitingBecause")
}

#[tokio::test]
async fn a_paused_run_and_a_paused_queue_say_since_when_by_whom_and_why() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    assert_eq!(reasons(&cluster, &run).await, ["No node that can run probe:scenario is alive."]);
    let pause = "mutation { pauseQueue(reason: \"budget review\") { isPaused } }";
    cluster.admin(pause, json!({})).await.data();
    assert_eq!(
        reasons(&cluster, &run).await,
        ["The whole queue is paused by root (budget review); it starts after resumeQueue."]
    );
    control(&cluster, "pauseRun", &run).await;
    let since: String = sqlx::query_scalar(
        "select to_char(paused_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from run",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!(
        reasons(&cluster, &run).await,
        [format!("The run has been paused since {since}; it starts after resumeRun.")]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_run_at_its_limit_says_so() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=60000"], json!({"maxConcurrency": 2})).await;
    cluster.until(&run, "at its limit", |run| run["progress"]["active"] == 2).await;
    assert_eq!(
        reasons(&cluster, &run).await,
        ["The limit of 2 jobs at once for the run is reached until one of them ends."]
    );
    cluster
        .admin("mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }", json!({ "id": run }))
        .await
        .data();
    cluster.stop().await;
}

#[tokio::test]
async fn a_retry_and_a_throttle_say_until_when() {
    let cluster = Cluster::with(&[
        ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "600000"),
        ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", "3600000"),
    ])
    .await;
    let definition = cluster.definition(1).await;
    for (model, says, ends) in [
        ("mock/echo?failFirst=1", "It is tried again at ", ", after 1 counted failure."),
        (
            "mock/echo?fail=rate_limit&retryAfterMs=600000",
            "The provider asked to slow down; it is tried again at ",
            ".",
        ),
    ] {
        let run = cluster.run(&definition, &[model], json!({})).await;
        cluster
            .until(&run, "tried once", |run| run["startedAt"].is_string() && run["progress"]["pending"] == 1)
            .await;
        let job = waiting(&cluster, &run).await.remove(0);
        let second = &job["runAt"].as_str().unwrap()[..19];
        assert_eq!(job["waitingBecause"], format!("{says}{second}Z{ends}"), "{model}");
        assert_eq!(job["attempt"], 1);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_says_how_many_come_first() {
    let cluster = Cluster::with(&[("RUNLANE_WORKER_CONCURRENCY", "1")]).await;
    let definition = cluster.definition(4).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=60000"], json!({})).await;
    cluster.until(&run, "running", |run| run["progress"]["active"] == 1).await;
    assert_eq!(
        reasons(&cluster, &run).await,
        ["It starts with the next free slot.", "1 job comes first.", "2 jobs come first."]
    );
    let urgent = cluster.run(&definition, &["mock/echo"], json!({"priority": "HIGH"})).await;
    assert_eq!(reasons(&cluster, &run).await[0], "4 jobs come first.");
    control(&cluster, "pauseRun", &urgent).await;
    assert_eq!(
        reasons(&cluster, &run).await[0],
        "It starts with the next free slot.",
        "paused jobs hold nobody up"
    );
    cluster.run(&definition, &["openai/x"], json!({"priority": "HIGH"})).await;
    assert_eq!(
        reasons(&cluster, &run).await[0],
        "It starts with the next free slot.",
        "nor do those that nobody serves"
    );
    cluster
        .admin("mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }", json!({ "id": run }))
        .await
        .data();
    cluster.stop().await;
}

#[tokio::test]
async fn a_known_provider_that_no_node_serves_waits_and_says_so_and_holds_nobody_up() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["openai/gpt", "mock/echo"], json!({"priority": "HIGH"})).await;
    let later = cluster.run(&definition, &["mock/echo"], json!({"priority": "LOW"})).await;
    cluster.until_status(&later, "COMPLETED").await;
    let state = cluster.until(&run, "half done", |run| run["progress"]["byModel"][1]["completed"] == 3).await;
    assert_eq!((&state["status"], &state["progress"]["pending"]), (&json!("RUNNING"), &json!(3)));
    for job in waiting(&cluster, &run).await {
        assert_eq!(
            (&job["modelId"], &job["attempt"]),
            (&json!("openai/gpt"), &json!(0)),
            "it was never claimed"
        );
        assert_eq!(
            job["waitingBecause"],
            "No node that can run probe:scenario for the model \"openai/gpt\" is alive: set OPENAI_API_KEY in the environment of one."
        );
    }
    cluster.stop().await;
}
