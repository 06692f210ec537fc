//! What people see of it: the list, the command, the reasons, the metrics.

use std::process::Command;

use runlane::domain::Role;
use serde_json::{Value, json};

use super::{definition, metric, number, sql};
use crate::queue::support::until_sql;
use crate::support::app::Cluster;

const LIST: &str = "query($first: Int!, $after: String, $filter: StalenessFilter) {
    staleness(first: $first, after: $after, filter: $filter) {
        totalCount pageInfo { hasNextPage endCursor }
        nodes { jobId runId type modelId stage since ageSeconds thresholdSeconds percent health action } } }";

/// Two lanes of 3 jobs: of the first model all wait for 2 hours, of the second one for 50 minutes.
async fn waiting(cluster: &Cluster) -> String {
    let definition = definition(cluster, 3, json!({})).await;
    let run = cluster.run(&definition, &["mock/echo?n=1", "mock/echo?n=2"], json!({})).await;
    sql(
        cluster,
        "update job set run_at = run_at - interval '2 h' where lane_id = (select min(id) from lane);
         update job set run_at = run_at - interval '50 min' where id = (select max(id) from current_job)",
    )
    .await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_what_takes_long_page_by_page_to_those_who_may_see_it() {
    let cluster = Cluster::api_only(&[]).await;
    let run = waiting(&cluster).await;
    let list = async |variables: Value| {
        cluster.ask("eve", Role::Viewer, LIST, variables).await.data()["staleness"].clone()
    };
    let all = list(json!({ "first": 10 })).await;
    assert_eq!(all["totalCount"], 4);
    let nodes = all["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 4);
    let first = &nodes[0];
    assert_eq!(
        (
            &first["runId"],
            &first["type"],
            &first["modelId"],
            &first["stage"],
            &first["health"],
            &first["action"]
        ),
        (
            &json!(run),
            &json!("probe:scenario"),
            &json!("mock/echo?n=1"),
            &json!("WAITING"),
            &json!("STALE"),
            &json!("REPORT")
        )
    );
    assert_eq!(first["thresholdSeconds"], 3_600.0);
    assert!((200.0..210.0).contains(&first["percent"].as_f64().unwrap()), "{first}");
    assert_eq!(nodes[3]["health"], "WARNING");

    // Page by page it is the same list.
    let mut ids = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = list(json!({ "first": 3, "after": after })).await;
        ids.extend(page["nodes"].as_array().unwrap().iter().map(|n| n["jobId"].clone()));
        if page["pageInfo"]["hasNextPage"] == json!(false) {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(ids, nodes.iter().map(|n| n["jobId"].clone()).collect::<Vec<_>>());

    for (filter, n) in [
        (json!({ "health": "STALE" }), 3),
        (json!({ "health": "WARNING" }), 1),
        (json!({ "stage": "IN_PROCESS" }), 0),
        (json!({ "type": ["analyze:deep"] }), 0),
        (json!({ "runId": run }), 4),
        (json!({ "runId": "nonsense" }), 0),
    ] {
        let found = list(json!({ "first": 10, "filter": filter })).await;
        assert_eq!(
            (&found["totalCount"], found["nodes"].as_array().unwrap().len()),
            (&json!(n), n),
            "{filter}"
        );
    }
    let user = cluster.user(LIST, json!({ "first": 1 })).await;
    assert_eq!(user.code(), "FORBIDDEN");
    let wrong = cluster.admin(LIST, json!({ "first": 1, "filter": { "type": ["x"] } })).await;
    assert_eq!((wrong.code(), &wrong.refusal()["field"]), ("VALIDATION_ERROR", &json!("filter.type[0]")));
    let view = "select count(*) from v_task_staleness_monitoring where health <> 'ok'";
    assert_eq!(number(&cluster, view).await, 4, "the view says the same");
    cluster.stop().await;
}

/// What a run's owner is told of it, and when its clock began, in milliseconds.
async fn of_run(cluster: &Cluster, run: &str) -> Value {
    let query = "query($id: ID!) { run(id: $id) { staleness {
        health since ageSeconds thresholdSeconds percent action } } }";
    cluster.user(query, json!({ "id": run })).await.data()["run"]["staleness"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_that_it_takes_long_and_what_then_follows() {
    let cluster = Cluster::api_only(&[]).await;
    let plain = definition(&cluster, 1, json!({})).await;
    let strict =
        definition(&cluster, 1, json!({ "maxDurationMinutes": 10, "autoFailOnTimeout": true })).await;
    let plain = cluster.run(&plain, &["mock/echo"], json!({})).await;
    let strict = cluster.run(&strict, &["mock/echo"], json!({})).await;
    assert_eq!(of_run(&cluster, &plain).await, Value::Null, "it has not started");
    let begin = async |ago: &str| {
        let change = format!("update run set status = 'RUNNING', started_at = now() - interval '{ago}'");
        sql(&cluster, &change).await;
    };
    begin("5 minutes").await;
    for run in [&plain, &strict] {
        assert_eq!(of_run(&cluster, run).await, Value::Null, "it is fresh");
    }
    begin("9 minutes").await;
    assert_eq!(of_run(&cluster, &plain).await, Value::Null);
    let warned = of_run(&cluster, &strict).await;
    assert_eq!((&warned["health"], &warned["action"]), (&json!("WARNING"), &json!("FAIL")));
    begin("30 hours").await;
    let stale = of_run(&cluster, &plain).await;
    assert_eq!(
        (&stale["health"], &stale["action"], &stale["thresholdSeconds"], &stale["percent"]),
        (&json!("STALE"), &json!("REPORT"), &json!(86_400.0), &json!(125.0))
    );
    let since: String = sqlx::query_scalar(
        "select to_char(started_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') from run limit 1",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert!(stale["since"].as_str().unwrap().starts_with(&since), "{stale} {since}");

    // The command names them before the jobs.
    let output = Command::new(env!("CARGO_BIN_EXE_runlane"))
        .args(["staleness", "check", "--dry-run", "--json"])
        .current_dir(std::env::temp_dir())
        .env("DATABASE_URL", &cluster.url)
        .output()
        .unwrap();
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let said: Vec<_> =
        lines.iter().map(|l| (l["runId"].as_str().unwrap(), &l["stage"], &l["action"])).collect();
    let (run, fail, report) = (json!("run"), json!("FAIL"), json!("REPORT"));
    assert_eq!(said.len(), 2, "{lines:?}");
    assert!(said.contains(&(&strict, &run, &fail)) && said.contains(&(&plain, &run, &report)), "{lines:?}");
    let view = "select count(*) from v_task_staleness_monitoring where job_id is null and health = 'stale'";
    assert_eq!(number(&cluster, view).await, 2, "the view says the same");

    cluster.user("mutation($id: ID!) { pauseRun(id: $id) { id } }", json!({ "id": plain })).await.data();
    assert_eq!(of_run(&cluster, &plain).await, Value::Null, "nothing is stale while it is paused");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_that_it_has_waited_for_long() {
    let cluster = Cluster::api_only(&[]).await;
    let run = waiting(&cluster).await;
    let query = "query($id: ID!) { run(id: $id) { jobs(first: 10) { nodes { modelId waitingBecause } } } }";
    let answer = cluster.user(query, json!({ "id": run })).await;
    let nodes = answer.data()["run"]["jobs"]["nodes"].as_array().unwrap().clone();
    let ends =
        |end: &str| nodes.iter().filter(|n| n["waitingBecause"].as_str().unwrap().ends_with(end)).count();
    assert_eq!(
        ends("is alive. It has waited for 120 min, longer than the 60 min after which it counts as stale."),
        3,
        "{nodes:?}"
    );
    assert_eq!(
        ends("It has waited for 50 min, 83 % of the 60 min after which it is reported as stale."),
        1,
        "{nodes:?}"
    );
    assert_eq!(ends("No node that can run probe:scenario is alive."), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_the_same_and_changes_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    waiting(&cluster).await;
    let check = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_runlane"))
            .args(["staleness", "check"])
            .args(arguments)
            .current_dir(std::env::temp_dir())
            .env("DATABASE_URL", &cluster.url)
            .output()
            .unwrap()
    };
    let json = check(&["--dry-run", "--json"]);
    assert!(json.status.success(), "{json:?}");
    let lines: Vec<Value> =
        String::from_utf8(json.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let health: Vec<&str> = lines.iter().map(|l| l["health"].as_str().unwrap()).collect();
    assert_eq!(health, ["stale", "stale", "stale", "warning"]);
    let table = String::from_utf8(check(&["--dry-run", "--limit", "2"]).stdout).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("120 min of 60 min") && table.contains("REPORT"), "{table}");
    assert_eq!(check(&[]).stdout.len(), check(&["--dry-run"]).stdout.len(), "it never changes anything");
    assert_eq!(number(&cluster, "select count(*) from audit where action like 'staleness.%'").await, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leading_node_counts_what_takes_long() {
    let cluster = Cluster::with(&[
        ("RUNLANE_STALENESS_INTERVAL_MS", "50"),
        ("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "1"),
    ])
    .await;
    let definition = cluster.definition(3).await;
    cluster.run(&definition, &["openai/gpt-unserved"], json!({})).await;
    until_sql(&cluster.db, "reported", "select exists (select from audit where action = 'staleness.report')")
        .await;
    metric(&cluster, r#"runlane_stale_jobs{kind="probe:scenario",health="stale"} 3"#).await;
    metric(&cluster, r#"runlane_staleness_acts_total{stage="waiting",health="stale",action="REPORT"} 3"#)
        .await;
    cluster.stop().await;
}

#[test]
fn settings_come_from_a_file_that_the_environment_wins_over_and_a_mistake_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join(".env"),
        "RUNLANE_STALENESS_ACTION=explode\nRUNLANE_STALENESS_WARN_PERCENT=0\nRUNLANE_STALENESS_ENABLED=perhaps\n",
    )
    .unwrap();
    let check = |action: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
        command
            .args(["staleness", "check", "--dry-run"])
            .current_dir(directory.path())
            .env_remove("DATABASE_URL");
        if let Some(action) = action {
            command.env("RUNLANE_STALENESS_ACTION", action);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let file = check(None);
    for mistake in [
        "RUNLANE_STALENESS_ACTION: \"explode\" cannot be used: give report, requeue or dlq",
        "RUNLANE_STALENESS_WARN_PERCENT: 0 is out of range: give a number from 1 to 100",
        "RUNLANE_STALENESS_ENABLED: \"perhaps\" cannot be used: give true or false",
    ] {
        assert!(file.contains(mistake), "{file}");
    }
    let both = check(Some("dlq"));
    assert!(
        !both.contains("RUNLANE_STALENESS_ACTION") && both.contains("RUNLANE_STALENESS_WARN_PERCENT"),
        "{both}"
    );
}
