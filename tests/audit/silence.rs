//! What did not happen, and what changed nothing, leaves no record.

use runlane::domain::Role;
use serde_json::json;

use super::support::{count, did, entries, newest_job, of, send};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_changes_nothing_leaves_no_record() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let more = json!({ "idempotencyKey": "once" });
    let run = cluster.run(&definition, &["mock/echo"], more.clone()).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    let before = count(&cluster.db).await;
    did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    assert_eq!(count(&cluster.db).await, before, "it waits already");
    send(&cluster, "root", Role::Admin, "pauseQueue(reason: \"first\")", "").await.data();
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    let other = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let before = count(&cluster.db).await;

    assert_eq!(cluster.run(&definition, &["mock/echo"], more).await, run);
    send(&cluster, "root", Role::Admin, "pauseQueue(reason: \"again\")", "").await.data();
    for call in ["cancelRun(id: $id, mode: IMMEDIATE)", "cancelRun(id: $id)"] {
        did(&cluster, call, &run).await;
    }
    did(&cluster, "setRunPriority(id: $id, priority: NORMAL)", &other).await;
    assert_eq!(count(&cluster.db).await, before, "{:#?}", entries(&cluster.db).await);
    send(&cluster, "root", Role::Admin, "resumeQueue", "").await.data();
    assert_eq!(count(&cluster.db).await, before + 1, "what changes something is recorded");
    send(&cluster, "root", Role::Admin, "resumeQueue", "").await.data();
    assert_eq!(count(&cluster.db).await, before + 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_leaves_no_record() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let job = newest_job(&cluster.db, &run).await;
    let before = count(&cluster.db).await;
    let refusals = [
        (send(&cluster, "ada", Role::User, "resumeRun(id: $id)", &run).await, "RUN_STATE_ERROR"),
        (send(&cluster, "bob", Role::User, "pauseRun(id: $id)", &run).await, "NOT_FOUND"),
        (send(&cluster, "vic", Role::Viewer, "pauseRun(id: $id)", &run).await, "FORBIDDEN"),
        (send(&cluster, "ada", Role::User, "pauseQueue", "").await, "FORBIDDEN"),
        (send(&cluster, "ada", Role::User, "retryJob(id: $id)", &job).await, "JOB_VALIDATION_ERROR"),
        (cluster.start_run(&definition, &["nobody/x"], json!({})).await, "VALIDATION_ERROR"),
    ];
    for (answer, code) in refusals {
        assert_eq!(answer.code(), code);
    }
    assert_eq!(count(&cluster.db).await, before, "{:#?}", entries(&cluster.db).await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_is_rolled_back_leaves_no_record() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    // Whatever is recorded of the act is there before this refuses it: at the very end of the transaction.
    for sql in [
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$",
        "create constraint trigger refused after update on run deferrable initially deferred
            for each row execute function refuse()",
    ] {
        sqlx::query(sql).execute(&cluster.db).await.unwrap();
    }
    let before = count(&cluster.db).await;
    assert_eq!(send(&cluster, "ada", Role::User, "pauseRun(id: $id)", &run).await.code(), "INTERNAL");
    assert_eq!(count(&cluster.db).await, before);
    sqlx::query("drop trigger refused on run").execute(&cluster.db).await.unwrap();
    did(&cluster, "pauseRun(id: $id)", &run).await;
    assert_eq!(of(&cluster.db, &["pauseRun", "run.paused"]).await.len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_leaves_its_attempt_and_no_other_record() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(20).await;
    cluster.add_node(&[]).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    let attempts: i64 =
        sqlx::query_scalar("select count(*) from attempt").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(attempts, 21);
    let actions: Vec<String> = entries(&cluster.db).await.into_iter().map(|e| e.action).collect();
    assert_eq!(actions, ["createDefinition", "node.joined", "startRun", "run.running", "run.completed"]);
    cluster.stop().await;
}
