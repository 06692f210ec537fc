//! What operators see of nodes and do to them.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::fence::metric;
use crate::queue::support::{Node, assert_books_balance, attempts, jobs, quick, until_sql};
use crate::support::app::Cluster;

const NODE: &str =
    "id name version startedAt executes slots { type slots active } claims heartbeatAgeMs leaseUntil
    failedRenewals lateResults isDraining state";

/// The nodes as a viewer sees them.
async fn nodes(cluster: &Cluster) -> Vec<Value> {
    let answer = cluster.ask("vic", Role::Viewer, &format!("{{ nodes {{ {NODE} }} }}"), json!({})).await;
    answer.data()["nodes"].as_array().unwrap().clone()
}

/// Does this to the node as `root`.
async fn act(cluster: &Cluster, act: &str, id: &str) -> Value {
    let query = format!("mutation($id: ID!) {{ it: {act}(id: $id) {{ {NODE} }} }}");
    cluster.admin(&query, json!({ "id": id })).await.data()["it"].clone()
}

async fn ready(cluster: &Cluster) -> (u16, Value) {
    let response = reqwest::get(format!("http://{}/ready", cluster.address)).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn until_ready_is(cluster: &Cluster, status: u16) {
    let deadline = tokio::time::Instant::now() + crate::support::app::PATIENCE;
    while ready(cluster).await.0 != status {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", ready(cluster).await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn acts(cluster: &Cluster) -> Vec<(String, String)> {
    sqlx::query_as(
        "select action, actor from audit where action like '%Node' or action like 'release%' order by id",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_shown_to_viewers_and_admins_with_what_they_do() {
    let cluster =
        Cluster::with(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "2"), ("RUNLANE_LEASE_RENEWAL_MS", "200")]))
            .await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    until_sql(&cluster.db, "said", "select bool_and((active ->> 'probe:scenario')::int = 2) from node").await;
    let shown = nodes(&cluster).await;
    assert_eq!(shown.len(), 1);
    let node = &shown[0];
    assert_eq!(
        (&node["state"], &node["isDraining"], &node["executes"]),
        (&json!("ACTIVE"), &json!(false), &json!(true))
    );
    assert_eq!(
        (&node["claims"], &node["failedRenewals"], &node["lateResults"]),
        (&json!(2), &json!(0), &json!(0))
    );
    assert_eq!(node["slots"][0], json!({ "type": "probe:scenario", "slots": 2, "active": 2 }));
    assert_eq!(node["slots"].as_array().unwrap().len(), 3);
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert!(node["heartbeatAgeMs"].as_i64().unwrap() < 6_000, "{node}");
    let id = node["id"].as_str().unwrap();
    let one = cluster.admin("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
    assert_eq!(one.data()["node"]["id"], id);
    for nothing in ["00000000-0000-7000-8000-000000000000", "x"] {
        let none = cluster.admin("query($id: ID!) { node(id: $id) { id } }", json!({ "id": nothing })).await;
        assert_eq!(none.data()["node"], Value::Null);
        let answer =
            cluster.admin("mutation($id: ID!) { drainNode(id: $id) { id } }", json!({ "id": nothing })).await;
        assert_eq!(answer.code(), "NOT_FOUND");
    }
    assert_eq!(cluster.user("{ nodes { id } }", json!({})).await.code(), "FORBIDDEN");
    for call in ["drainNode(id: $id)", "undrainNode(id: $id)", "releaseNode(id: $id)", "releaseJob(id: $id)"]
    {
        for role in [Role::User, Role::Viewer] {
            let query = format!("mutation($id: ID!) {{ {call} {{ id }} }}");
            assert_eq!(
                cluster.ask("ada", role, &query, json!({ "id": id })).await.code(),
                "FORBIDDEN",
                "{call}"
            );
        }
    }
    assert_eq!(acts(&cluster).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_what_it_runs_claims_nothing_and_goes_on_when_it_is_told_to() {
    // Nothing but the act itself wakes it up.
    let slow = [("RUNLANE_POLL_INTERVAL_MS", "600000"), ("RUNLANE_WORKER_CONCURRENCY", "1")];
    let cluster = Cluster::with(&slow).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=700"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    let id = nodes(&cluster).await[0]["id"].as_str().unwrap().to_owned();
    let drained = act(&cluster, "drainNode", &id).await;
    assert_eq!((&drained["state"], &drained["isDraining"]), (&json!("DRAINING"), &json!(true)));
    let claimed: i64 =
        sqlx::query_scalar("select sum(claims) from current_job").fetch_one(&cluster.db).await.unwrap();
    until_ready_is(&cluster, 503).await;
    assert_eq!(ready(&cluster).await.1, json!({ "status": "draining" }));
    cluster.until(&run, "idle", |s| s["progress"]["active"] == 0).await;
    let after: i64 =
        sqlx::query_scalar("select sum(claims) from current_job").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(after, claimed, "no claim after the drain");
    assert!(attempts(&cluster.db).await.iter().all(|a| a.outcome == "completed"), "what ran was finished");
    // Two more renewals: the lease is kept.
    until_sql(&cluster.db, "kept", "select bool_and(renewed_at > started_at + interval '3 s') from node")
        .await;
    act(&cluster, "drainNode", &id).await;
    let again = act(&cluster, "undrainNode", &id).await;
    assert_eq!((&again["state"], &again["id"]), (&json!("ACTIVE"), &json!(id)));
    act(&cluster, "undrainNode", &id).await;
    cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(ready(&cluster).await.0, 200);
    let done = [("drainNode".to_owned(), "root".to_owned()), ("undrainNode".to_owned(), "root".to_owned())];
    assert_eq!(acts(&cluster).await, done, "each once");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_that_loses_its_lease_comes_back_drained() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_LEASE_RENEWAL_MS", "200")])).await;
    let id = nodes(&cluster).await[0]["id"].as_str().unwrap().to_owned();
    act(&cluster, "drainNode", &id).await;
    until_ready_is(&cluster, 503).await;
    sqlx::query("delete from node").execute(&cluster.db).await.unwrap();
    until_sql(&cluster.db, "back", "select count(*) = 1 from node").await;
    let node = nodes(&cluster).await[0].clone();
    assert_eq!((node["state"].as_str(), node["id"] == id.as_str()), (Some("DRAINING"), false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_not_taken_back_to_work() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let node = Node::start(&cluster, "work", &[("RUNLANE_SHUTDOWN_GRACE_MS", "600000")]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    let id = nodes(&cluster).await[0]["id"].as_str().unwrap().to_owned();
    node.signal(nix::sys::signal::Signal::SIGTERM);
    until_sql(&cluster.db, "stopping", "select bool_and(is_stopping) from node").await;
    assert_eq!(nodes(&cluster).await[0]["state"], "STOPPING");
    let answer =
        cluster.admin("mutation($id: ID!) { undrainNode(id: $id) { id } }", json!({ "id": id })).await;
    assert_eq!(answer.code(), "CONFLICT");
    assert_eq!(acts(&cluster).await, []);
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_node_stops_its_jobs_and_another_takes_them() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "3")])).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 3).await;
    let id = nodes(&cluster).await[0]["id"].as_str().unwrap().to_owned();
    act(&cluster, "drainNode", &id).await;
    let released = act(&cluster, "releaseNode", &id).await;
    assert_eq!((&released["claims"], &released["state"]), (&json!(0), &json!("DRAINING")));
    // The node has noticed: its workers answered, and their results came too late.
    until_sql(
        &cluster.db,
        "noticed",
        "select bool_and(late_results = 3 and (active ->> 'probe:scenario')::int = 0) from node",
    )
    .await;
    act(&cluster, "releaseNode", &id).await;
    let other = Node::start(&cluster, "work", &[]);
    cluster.until(&run, "active again", |s| s["progress"]["active"] == 3).await;
    let jobs = jobs(&cluster.db, &run).await;
    assert!(jobs.iter().all(|j| j.claims == 2 && j.failures == 0 && j.losses == 0), "{jobs:#?}");
    let attempts = attempts(&cluster.db).await;
    assert!(attempts.iter().all(|a| a.outcome == "released" && a.error_code.is_none()), "{attempts:#?}");
    let done = ["drainNode", "releaseNode"].map(|a| (a.to_owned(), "root".to_owned()));
    assert_eq!(acts(&cluster).await, done, "and the second release, of nothing, is no act");
    assert_books_balance(&cluster.db).await;
    drop(other);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_job_burns_no_attempt_and_its_late_result_changes_nothing() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "2")])).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    let job = jobs(&cluster.db, &run).await[0].id.to_string();
    let release = "mutation($id: ID!, $attempt: Int) { releaseJob(id: $id, attempt: $attempt) { id status attempt failures } }";
    let wrong = cluster.admin(release, json!({ "id": job, "attempt": 7 })).await;
    assert_eq!(wrong.code(), "JOB_VALIDATION_ERROR");
    assert_eq!(acts(&cluster).await, [], "refused");
    let answer = cluster.admin(release, json!({ "id": job, "attempt": 1 })).await;
    assert_eq!(answer.data()["releaseJob"]["failures"], 0);
    // The same node takes it again, under the next number; the worker of the first is stopped.
    until_sql(
        &cluster.db,
        "again",
        &format!("select state = 'active' and claims = 2 from current_job where id = {job}"),
    )
    .await;
    until_sql(&cluster.db, "late", "select bool_and(late_results = 1) from node").await;
    assert_eq!(metric(&cluster, "runlane_results_late_total").await, 1);
    assert_eq!(acts(&cluster).await, [("releaseJob".to_owned(), "root".to_owned())]);
    let (before, after): (Value, Value) =
        sqlx::query_as("select before, after from audit where action = 'releaseJob'")
            .fetch_one(&cluster.db)
            .await
            .unwrap();
    assert_eq!(
        (&before["state"], &after),
        (&json!("active"), &json!({ "state": "pending", "nodeId": null }))
    );
    let all = jobs(&cluster.db, &run).await;
    assert_eq!((all[1].claims, all[1].state.as_str()), (1, "active"), "the other goes on");
    cluster.user("mutation($id: ID!) { pauseRun(id: $id) { id } }", json!({ "id": run })).await.data();
    cluster.admin(release, json!({ "id": job })).await.data();
    assert_eq!(cluster.admin(release, json!({ "id": job })).await.code(), "JOB_VALIDATION_ERROR", "it waits");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_nodes_and_acts_on_them_in_a_name() {
    let cluster = Cluster::with(&[]).await;
    let id = nodes(&cluster).await[0]["id"].as_str().unwrap().to_owned();
    let run = async |arguments: &[&str]| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_runlane"))
            .args(arguments)
            .current_dir(std::env::temp_dir())
            .env("DATABASE_URL", &cluster.url)
            .output()
            .await
            .unwrap()
    };
    let text = |output: &std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout.clone()).unwrap()
    };
    let table = text(&run(&["node", "list"]).await);
    assert!(
        table.contains(&id) && table.contains("ACTIVE") && table.contains("probe:scenario 0/8"),
        "{table}"
    );
    let listed: Value = serde_json::from_str(&text(&run(&["node", "list", "--json"]).await)).unwrap();
    assert_eq!(listed[0]["id"], id);
    let drained: Value =
        serde_json::from_str(&text(&run(&["node", "drain", &id, "--as", "grace", "--json"]).await)).unwrap();
    assert_eq!(drained["state"], "DRAINING");
    text(&run(&["node", "undrain", &id]).await);
    assert!(text(&run(&["node", "show", &id]).await).contains("ACTIVE"));
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let done =
        [("drainNode".to_owned(), "grace".to_owned()), ("undrainNode".to_owned(), format!("cli:{user}"))];
    assert_eq!(acts(&cluster).await, done);
    for (wrong, says) in [
        (vec!["node", "show", "x"], "there is no node with the id x"),
        (vec!["node", "drain", "x"], "There is no node with the id \"x\""),
        (vec!["node", "drain", &id, "--as", " "], "give a name"),
    ] {
        let output = run(&wrong).await;
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(says), "{wrong:?}: {text}");
    }
    cluster.stop().await;
}
