//! Retrying failed jobs, and priorities.

use serde_json::json;

use super::support::{ENDLESS, act, counts, did, job, jobs, number, probes, queue, snapshot};
use crate::support::app::Cluster;

/// Retries come at once.
const QUICK: [(&str, &str); 2] =
    [("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "1"), ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", "1")];

#[tokio::test(flavor = "multi_thread")]
async fn retry_failed_jobs_reopens_the_run_with_exact_progress_and_goes_on_counting_attempts() {
    let cluster = Cluster::with(&QUICK).await;
    let fails = "mock/echo?failFirst=5";
    let run = cluster.run(&cluster.definition(3).await, &["mock/echo", fails], json!({})).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 3, 3, 0]);
    let ids = probes(&cluster, &run, "FAILED").await;
    assert_eq!(job(&cluster, &ids[0]).await["attempt"], 4, "one attempt and three retries");
    assert_eq!(jobs(&cluster, &run, json!({ "errorCode": "network" })).await.0, 3);

    queue(&cluster, "pauseQueue").await;
    let reopened = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(reopened["status"], "RUNNING");
    assert!(reopened["completedAt"].is_null());
    assert_eq!(reopened["startedAt"], done["startedAt"]);
    assert_eq!(counts(&reopened), [3, 0, 3, 0, 0]);
    assert_eq!(reopened["progress"]["percentComplete"], 50.0);
    assert_eq!(jobs(&cluster, &run, json!({ "errorCode": "network" })).await.0, 0);
    let waiting = job(&cluster, &ids[0]).await;
    assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("PENDING"), &json!(4)));
    assert_eq!((&waiting["failures"], &waiting["error"]), (&json!(0), &json!(null)));

    queue(&cluster, "resumeQueue").await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 6, 0, 0]);
    for id in ids {
        let job = job(&cluster, &id).await;
        assert_eq!((&job["attempt"], &job["failures"]), (&json!(6), &json!(1)), "failures are counted anew");
        let numbers: Vec<_> =
            job["attempts"].as_array().unwrap().iter().map(|a| a["number"].clone()).collect();
        assert_eq!(json!(numbers), json!([1, 2, 3, 4, 5, 6]));
        let outcomes: Vec<_> =
            job["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
        assert_eq!(
            json!(outcomes),
            json!(["RETRIED", "RETRIED", "RETRIED", "FAILED", "RETRIED", "COMPLETED"])
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_failed_jobs_with_none_failed_changes_nothing() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    cluster.until(&run, "analysed", |s| super::support::is_analysis(s, "BASIC", "COMPLETED")).await;
    let before = snapshot(&cluster, &run).await;
    assert_eq!(did(&cluster, "retryFailedJobs(runId: $id)", &run).await["status"], "COMPLETED");
    assert_eq!(snapshot(&cluster, &run).await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_failed_jobs_leaves_a_paused_run_paused() {
    let cluster = Cluster::start().await;
    let models = ["mock/echo?fail=validation&failFirst=1", "mock/echo?delayMs=150"];
    let run = cluster.run(&cluster.definition(40).await, &models, json!({ "maxConcurrency": 2 })).await;
    cluster.until(&run, "some failed", |s| counts(s)[3] >= 2).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    let rest = cluster.until(&run, "at rest", |s| counts(s)[1] == 0).await;
    let [pending, _, completed, failed, _] = counts(&rest);
    let retried = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(retried["status"], "PAUSED");
    assert_eq!(counts(&retried), [pending + failed, 0, completed, 0, 0]);
    did(&cluster, "resumeRun(id: $id)", &run).await;
    cluster.until(&run, "all settled", |s| counts(s)[0] + counts(s)[1] == 0).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_failed_jobs_takes_as_many_statements_for_300_jobs_as_for_3() {
    let cluster = Cluster::start().await;
    sqlx::raw_sql(
        "create sequence statements;
         create function tally() returns trigger language plpgsql as
             $$ begin perform nextval('statements'); return null; end $$;
         create trigger tally after insert or update or delete on job for each statement execute function tally();
         create trigger tally after insert or update or delete on lane for each statement execute function tally();
         create trigger tally after insert or update or delete on lane_error for each statement execute function tally();
         create trigger tally after insert or update or delete on run for each statement execute function tally();",
    )
    .execute(&cluster.db)
    .await
    .unwrap();
    let mut runs = Vec::new();
    for n in [3, 300] {
        let run = cluster.run(&cluster.definition(n).await, &["mock/echo?fail=validation"], json!({})).await;
        cluster.until(&run, "analysed", |s| super::support::is_analysis(s, "BASIC", "COMPLETED")).await;
        runs.push(run);
    }
    queue(&cluster, "pauseQueue").await;
    let mut statements = Vec::new();
    for (run, n) in runs.iter().zip([3, 300]) {
        let said = "select nextval('statements') where $1::uuid is not null";
        let before = number(&cluster, said, run).await;
        let retried = did(&cluster, "retryFailedJobs(runId: $id)", run).await;
        assert_eq!(counts(&retried), [n, 0, 0, 0, 0]);
        statements.push(number(&cluster, said, run).await - before);
    }
    assert_eq!(statements[0], statements[1]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_priority_holds_for_waiting_jobs_and_leaves_active_ones_alone() {
    let cluster =
        Cluster::with(&[("RUNLANE_WORKER_CONCURRENCY", "1"), ("RUNLANE_WORKER_CANCEL_GRACE_MS", "500")])
            .await;
    let definition = cluster.definition(2).await;
    let busy = cluster.run(&definition, &[ENDLESS], json!({ "maxConcurrency": 1 })).await;
    cluster.until(&busy, "started", |s| counts(s)[1] == 1).await;
    let first = cluster.run(&definition, &["mock/echo?a=1"], json!({})).await;
    let second = cluster.run(&definition, &["mock/echo?b=1"], json!({})).await;
    let raised = did(&cluster, "setRunPriority(id: $id, priority: HIGH)", &second).await;
    assert_eq!(raised["priority"], "HIGH");
    for id in probes(&cluster, &second, "PENDING").await {
        assert_eq!(job(&cluster, &id).await["priority"], 10);
    }
    let before = probes(&cluster, &busy, "RUNNING").await;
    let lowered = did(&cluster, "setRunPriority(id: $id, priority: LOW)", &busy).await;
    assert_eq!((&lowered["priority"], counts(&lowered)[1]), (&json!("LOW"), 1));
    assert_eq!(probes(&cluster, &busy, "RUNNING").await, before, "what runs goes on");

    did(&cluster, "cancelJob(id: $id)", &before[0]).await;
    cluster.until_status(&first, "COMPLETED").await;
    let order: Vec<String> = sqlx::query_scalar(
        "select l.run_id::text from attempt a join current_job j on j.id = a.job_id join lane l on l.id = j.lane_id
          where l.kind = 'probe:scenario' and a.outcome = 'completed' order by a.started_at",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert_eq!(order, [&second, &second, &first, &first].map(Clone::clone));
    let refused = act(&cluster, "setRunPriority(id: $id, priority: LOW)", &first).await;
    assert_eq!(refused.refusal()["action"], "setPriority");
    cluster.until(&busy, "the low one's turn", |s| counts(s)[1] == 1).await;
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &busy).await;
    cluster.stop().await;
}
