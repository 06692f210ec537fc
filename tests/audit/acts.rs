//! What people do is recorded once each, in their name, with before and after.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::support::{Entry, did, entries, newest_job, of, send};
use crate::support::app::Cluster;

/// The one entry of this action.
async fn only(cluster: &Cluster, action: &str) -> Entry {
    let found = of(&cluster.db, &[action]).await;
    assert_eq!(found.len(), 1, "{action}: {found:#?}");
    found[0].clone()
}

/// Does this as `ada` and checks the one entry that it leaves.
async fn act(cluster: &Cluster, call: &str, id: &str, subject: &str, before: Value, after: Value) -> Entry {
    let request = did(cluster, call, id).await;
    let action = call.split('(').next().unwrap();
    let entry = only(cluster, action).await;
    assert_eq!((entry.actor.as_str(), entry.role.as_deref()), ("ada", Some("user")), "{entry:?}");
    assert_eq!(entry.request_id.as_deref(), Some(request.as_str()), "{entry:?}");
    assert_eq!((entry.subject_kind.as_str(), entry.subject_id.as_str()), (subject, id), "{entry:?}");
    assert_eq!(entry.before, Some(before), "{action}");
    assert_eq!(entry.after, Some(after), "{action}");
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_is_recorded_with_what_it_is() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo", "mock/rater"], json!({ "sampleSeed": 7 })).await;
    let created = only(&cluster, "createDefinition").await;
    assert_eq!((created.actor.as_str(), created.subject_id.as_str()), ("ada", definition.as_str()));
    assert_eq!(created.before, None);
    assert_eq!(created.after, Some(json!({ "name": "definition of 3", "version": 1, "scenarios": 3 })));
    let started = only(&cluster, "startRun").await;
    assert_eq!((started.actor.as_str(), started.subject_id.as_str()), ("ada", run.as_str()));
    assert_eq!(started.run_id.unwrap().to_string(), run);
    assert_eq!(started.before, None);
    let after = started.after.unwrap();
    assert_eq!(
        (&after["jobs"], &after["status"], &after["sampleSeed"]),
        (&json!(6), &json!("PENDING"), &json!(7))
    );
    assert_eq!(after["models"], json!(["mock/echo", "mock/rater"]));
    let kept: String = sqlx::query_scalar("select request_id from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(started.request_id, Some(kept), "the request that the run names");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_runs_and_jobs_is_recorded_once_with_before_and_after() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let c = &cluster;
    let (pending, paused) = (json!({ "status": "PENDING" }), json!({ "status": "PAUSED" }));
    act(c, "pauseRun(id: $id)", &run, "run", pending, paused.clone()).await;
    act(c, "resumeRun(id: $id)", &run, "run", paused, json!({ "status": "RUNNING" })).await;
    let (low, high) = (json!({ "priority": 5 }), json!({ "priority": 10 }));
    act(c, "setRunPriority(id: $id, priority: HIGH)", &run, "run", low, high).await;
    let job = newest_job(&cluster.db, &run).await;
    let (waits, cancelled) = (json!({ "state": "pending" }), json!({ "state": "cancelled" }));
    let entry = act(c, "cancelJob(id: $id)", &job, "job", waits, cancelled).await;
    assert_eq!(entry.run_id.unwrap().to_string(), run);
    let analysis = json!({ "analyze:deep": "waits or runs" });
    let request = did(c, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    let entry = only(c, "startAnalysis").await;
    assert_eq!((entry.request_id, entry.before, entry.after), (Some(request), None, Some(analysis)));
    let before = json!({ "status": "RUNNING", "cancelMode": null, "pending": 2, "cancelled": 1, "analyze:deep": "waits or runs" });
    let after = json!({ "status": "CANCELLED", "cancelMode": "GRACEFUL", "pending": 0, "cancelled": 3, "analyze:deep": "ended",
                        "analyze:basic": "waits or runs" });
    act(c, "cancelRun(id: $id)", &run, "run", before, after).await;
    let request = did(c, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    let entry = of(&cluster.db, &["cancelRun"]).await.pop().unwrap();
    assert_eq!(entry.request_id, Some(request));
    assert_eq!(
        (entry.before, entry.after),
        (Some(json!({ "cancelMode": "GRACEFUL" })), Some(json!({ "cancelMode": "IMMEDIATE" })))
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_recorded_with_what_they_brought_back() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?fail=validation"], json!({})).await;
    cluster.add_node(&[]).await;
    cluster
        .until(&run, "done", |s| s["progress"]["failed"] == 3 && s["analyses"][0]["status"] == "COMPLETED")
        .await;
    send(&cluster, "root", Role::Admin, "pauseQueue(reason: \"look\")", "").await.data();
    let job = newest_job(&cluster.db, &run).await;
    let before = json!({ "state": "failed", "epoch": 0, "errorCode": "validation" });
    act(
        &cluster,
        "retryJob(id: $id)",
        &job,
        "job",
        before,
        json!({ "state": "pending", "epoch": 1, "errorCode": null }),
    )
    .await;
    let before = json!({ "pending": 1, "failed": 2 });
    act(&cluster, "retryFailedJobs(runId: $id)", &run, "run", before, json!({ "pending": 3, "failed": 0 }))
        .await;
    send(&cluster, "root", Role::Admin, "resumeQueue", "").await.data();
    let paused = only(&cluster, "pauseQueue").await;
    assert_eq!((paused.actor.as_str(), paused.role.as_deref()), ("root", Some("admin")));
    assert_eq!(paused.after, Some(json!({ "isPaused": true, "reason": "look" })));
    let resumed = only(&cluster, "resumeQueue").await;
    assert_eq!(resumed.before, Some(json!({ "isPaused": true, "pausedBy": "root", "reason": "look" })));
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_nobody_changes_it() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    let before = entries(&cluster.db).await;
    cluster.restart().await;
    for change in ["update audit set actor = 'nobody'", "delete from audit", "truncate audit"] {
        let refused = sqlx::query(change).execute(&cluster.db).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(entries(&cluster.db).await, before);
    cluster.stop().await;
}
