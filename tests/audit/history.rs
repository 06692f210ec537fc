//! The audit and the attempts as one history.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::support::{did, newest_job};
use crate::support::app::Cluster;

const ENTRY: &str = "at kind action actor role requestId subjectKind subjectId runId before after note
    attempt { number outcome endedAt }";

/// A page of this history as this person sees it.
async fn page(cluster: &Cluster, who: (&str, Role), of: Value, first: i32, after: Option<&str>) -> Value {
    let query = format!(
        "query($runId: ID, $jobId: ID, $nodeId: ID, $first: Int!, $after: String) {{
            history(runId: $runId, jobId: $jobId, nodeId: $nodeId, first: $first, after: $after) {{
                totalCount pageInfo {{ hasNextPage endCursor }} nodes {{ {ENTRY} }} }} }}"
    );
    let mut variables = of;
    variables["first"] = json!(first);
    variables["after"] = json!(after);
    cluster.ask(who.0, who.1, &query, variables).await.body
}

async fn whole(cluster: &Cluster, of: Value) -> Vec<Value> {
    page(cluster, ("root", Role::Admin), of, 100, None).await["data"]["history"]["nodes"]
        .as_array()
        .unwrap()
        .clone()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|e| e["action"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_transitions_and_attempts_are_one_history_in_the_order_of_time() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo?fail=network&failFirst=1"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    did(&cluster, "resumeRun(id: $id)", &run).await;
    cluster.add_node(&[("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "10")]).await;
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    let job = newest_job(&cluster.db, &run).await;
    let expected_of_job = [
        "run.completed",
        "attempt.completed",
        "attempt.claimed",
        "attempt.retried",
        "attempt.claimed",
        "resumeRun",
        "run.running",
        "pauseRun",
        "run.paused",
        "startRun",
    ];
    let of_job = whole(&cluster, json!({ "jobId": job })).await;
    assert_eq!(actions(&of_job), expected_of_job);
    let of_run = whole(&cluster, json!({ "runId": run })).await;
    let expected = [["attempt.completed", "attempt.claimed"].as_slice(), &expected_of_job].concat();
    assert_eq!(actions(&of_run), expected, "with the analysis");
    let times: Vec<&str> = of_run.iter().map(|e| e["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let kinds: Vec<&str> = of_job.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..5], ["TRANSITION", "END", "CLAIM", "END", "CLAIM"]);
    assert_eq!((kinds[5], kinds[6], kinds[9]), ("ACT", "TRANSITION", "ACT"));
    assert_eq!(of_job[3]["attempt"]["outcome"], "RETRIED");
    assert_eq!((&of_job[7]["actor"], &of_job[7]["role"]), (&json!("ada"), &json!("user")));
    assert_eq!(
        (&of_job[7]["before"], &of_job[7]["after"]),
        (&json!({ "status": "PENDING" }), &json!({ "status": "PAUSED" }))
    );

    // The same by way of the run and the job, and page by page.
    let query = format!(
        "query($run: ID!, $job: ID!) {{ run(id: $run) {{ history(first: 100) {{ nodes {{ {ENTRY} }} }} }}
            job(id: $job) {{ history(first: 100) {{ nodes {{ {ENTRY} }} }} }} }}"
    );
    let answer = cluster.user(&query, json!({ "run": run, "job": job })).await;
    assert_eq!(answer.data()["run"]["history"]["nodes"], json!(of_run));
    assert_eq!(answer.data()["job"]["history"]["nodes"], json!(of_job));
    let mut paged = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let body = page(&cluster, ("ada", Role::User), json!({ "runId": run }), 5, after.as_deref()).await;
        let history = &body["data"]["history"];
        assert_eq!(history["totalCount"], 12);
        paged.extend(history["nodes"].as_array().unwrap().clone());
        if history["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = Some(history["pageInfo"]["endCursor"].as_str().unwrap().to_owned());
    }
    assert_eq!(paged, of_run);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_progress_is_in_the_history_of_its_job_and_of_its_node() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    let job = newest_job(&cluster.db, &run).await;
    let newest = whole(&cluster, json!({ "jobId": job })).await;
    let claim = newest.iter().find(|e| e["kind"] == "CLAIM").unwrap();
    assert_eq!(claim["attempt"], json!({ "number": 1, "outcome": null, "endedAt": null }));
    let answer = cluster.admin("{ nodes { id } }", json!({})).await;
    let node = answer.data()["nodes"][0]["id"].clone();
    let of_node = whole(&cluster, json!({ "nodeId": node })).await;
    assert_eq!(actions(&of_node), ["attempt.claimed", "node.joined"]);
    let all = whole(&cluster, json!({})).await;
    let mut of_all = actions(&all);
    of_all.sort_unstable();
    assert_eq!(of_all, ["createDefinition", "node.joined", "run.running", "startRun"]);
    cluster
        .admin("mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }", json!({ "id": run }))
        .await
        .data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_shown_to_those_whom_it_concerns() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let job = newest_job(&cluster.db, &run).await;
    let node = "00000000-0000-7000-8000-000000000000";
    let (ada, bob) = (("ada", Role::User), ("bob", Role::User));
    let (vic, root) = (("vic", Role::Viewer), ("root", Role::Admin));
    for of in [json!({ "runId": run }), json!({ "jobId": job })] {
        for who in [ada, vic, root] {
            let body = page(&cluster, who, of.clone(), 10, None).await;
            assert_eq!(body["data"]["history"]["nodes"][0]["action"], "startRun", "{who:?} {of}");
        }
        assert_eq!(page(&cluster, bob, of, 10, None).await["data"]["history"], Value::Null);
    }
    for of in [json!({ "nodeId": node }), json!({})] {
        let body = page(&cluster, ada, of.clone(), 10, None).await;
        assert_eq!(body["errors"][0]["extensions"]["code"], "FORBIDDEN", "{of}");
        assert!(page(&cluster, vic, of, 10, None).await["data"]["history"]["nodes"].is_array());
    }
    for (wrong, field) in
        [(json!({ "runId": run, "jobId": job }), "runId"), (json!({ "jobId": job, "nodeId": node }), "jobId")]
    {
        let body = page(&cluster, root, wrong, 10, None).await;
        assert_eq!(body["errors"][0]["extensions"]["code"], "VALIDATION_ERROR");
        assert_eq!(body["errors"][0]["extensions"]["field"], field);
    }
    for nothing in [json!({ "runId": "x" }), json!({ "jobId": "4711" }), json!({ "nodeId": "x" })] {
        assert_eq!(page(&cluster, root, nothing, 10, None).await["data"]["history"], Value::Null);
    }
    let body = page(&cluster, root, json!({ "runId": run }), 10, Some("00")).await;
    assert_eq!(body["errors"][0]["extensions"]["field"], "after");
    cluster.stop().await;
}
