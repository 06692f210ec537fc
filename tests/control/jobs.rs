//! Cancelling and retrying single jobs.

use serde_json::{Value, json};

use super::support::{ENDLESS, act, counts, did, is_analysis, job, probes, queue, snapshot};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn cancel_job_takes_a_pending_one_and_leaves_the_others() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({})).await;
    let ids = probes(&cluster, &run, "PENDING").await;
    let cancelled = did(&cluster, "cancelJob(id: $id)", &ids[1]).await;
    assert_eq!((&cancelled["status"], &cancelled["attempt"]), (&json!("CANCELLED"), &json!(0)));
    assert!(cancelled["completedAt"].is_string() && cancelled["waitingBecause"].is_null());
    assert_eq!(probes(&cluster, &run, "PENDING").await, [&ids[0], &ids[2]].map(Clone::clone));
    let state = cluster.state(&run).await;
    assert_eq!(counts(&state), [2, 0, 0, 0, 1]);
    assert_eq!(state["status"], "PENDING");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_job_stops_an_active_one() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo", ENDLESS], json!({})).await;
    cluster.until(&run, "under way", |s| counts(s) == [0, 2, 2, 0, 0]).await;
    let ids = probes(&cluster, &run, "RUNNING").await;
    let asked = did(&cluster, "cancelJob(id: $id)", &ids[0]).await;
    assert_eq!(asked["id"], ids[0].as_str());
    cluster.until(&run, "stopped", |s| counts(s) == [0, 1, 2, 0, 1]).await;
    let stopped = job(&cluster, &ids[0]).await;
    assert_eq!(
        (&stopped["status"], &stopped["attempts"][0]["outcome"]),
        (&json!("CANCELLED"), &json!("CANCELLED"))
    );
    assert_eq!(job(&cluster, &ids[1]).await["status"], "RUNNING");
    did(&cluster, "cancelJob(id: $id)", &ids[1]).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 2, 0, 2]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_last_waiting_job_completes_the_run_and_has_it_analysed() {
    let mut cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    for id in probes(&cluster, &run, "PENDING").await {
        did(&cluster, "cancelJob(id: $id)", &id).await;
    }
    let state = cluster.state(&run).await;
    assert_eq!(state["status"], "COMPLETED");
    assert_eq!(counts(&state), [0, 0, 0, 0, 2]);
    assert!(state["startedAt"].is_null() && state["completedAt"].is_string());
    assert!(is_analysis(&state, "BASIC", "PENDING"), "{state}");
    cluster.add_node(&[]).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;

    // Also where the run is paused.
    queue(&cluster, "pauseQueue").await;
    let paused = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &paused).await;
    did(&cluster, "cancelJob(id: $id)", &probes(&cluster, &paused, "PENDING").await[0]).await;
    assert_eq!(cluster.state(&paused).await["status"], "COMPLETED");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_job_takes_a_failed_one_reopens_its_run_and_leaves_the_other_failures() {
    let cluster = Cluster::start().await;
    let model = "mock/echo?fail=validation&failFirst=1";
    let run = cluster.run(&cluster.definition(2).await, &[model], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let ids = probes(&cluster, &run, "FAILED").await;
    queue(&cluster, "pauseQueue").await;
    let retried = did(&cluster, "retryJob(id: $id)", &ids[0]).await;
    assert_eq!(
        (&retried["status"], &retried["attempt"], &retried["failures"]),
        (&json!("PENDING"), &json!(1), &json!(0))
    );
    let reopened = cluster.state(&run).await;
    assert_eq!((&reopened["status"], &reopened["completedAt"]), (&json!("RUNNING"), &json!(null)));
    assert_eq!(counts(&reopened), [1, 0, 0, 1, 0]);
    queue(&cluster, "resumeQueue").await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 1, 1, 0]);
    assert_eq!(job(&cluster, &ids[0]).await["attempt"], 2);
    cluster.stop().await;
}

/// One probe in each status, by status, of a run under way.
async fn one_of_each(cluster: &Cluster) -> (String, [(&'static str, String); 5]) {
    let models = ["mock/echo", "mock/echo?fail=validation", ENDLESS];
    let run = cluster.run(&cluster.definition(2).await, &models, json!({})).await;
    cluster.until(&run, "under way", |s| counts(s) == [0, 2, 2, 2, 0]).await;
    queue(cluster, "pauseQueue").await;
    let other = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    let waiting = probes(cluster, &other, "PENDING").await;
    did(cluster, "cancelJob(id: $id)", &waiting[0]).await;
    let first = async |status| probes(cluster, &run, status).await.swap_remove(0);
    let each = [
        ("PENDING", waiting[1].clone()),
        ("RUNNING", first("RUNNING").await),
        ("COMPLETED", first("COMPLETED").await),
        ("FAILED", first("FAILED").await),
        ("CANCELLED", waiting[0].clone()),
    ];
    (run, each)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_any_other_state_is_a_job_validation_error_and_does_not_change() {
    let cluster = Cluster::with(&[("RUNLANE_WORKER_CANCEL_GRACE_MS", "500")]).await;
    let (run, each) = one_of_each(&cluster).await;
    for (action, takes) in [("retry", ["FAILED", ""]), ("cancel", ["PENDING", "RUNNING"])] {
        for (status, id) in each.iter().filter(|(status, _)| !takes.contains(status)) {
            let before = job(&cluster, id).await;
            let answer = act(&cluster, &format!("{action}Job(id: $id)"), id).await;
            assert_eq!(answer.code(), "JOB_VALIDATION_ERROR", "{action} {status}");
            assert_eq!(answer.refusal()["currentStatus"], *status);
            assert_eq!(answer.refusal()["action"], action);
            let message = answer.body["errors"][0]["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("Cannot {action} job {id} in {status} state")), "{message}");
            assert_eq!(job(&cluster, id).await, before);
        }
    }
    for (call, from, to) in [
        ("retryJob(id: $id)", "FAILED", ["PENDING"].as_slice()),
        ("cancelJob(id: $id)", "PENDING", &["CANCELLED"]),
        // Its node may be quicker than the answer is read.
        ("cancelJob(id: $id)", "RUNNING", &["RUNNING", "CANCELLED"]),
    ] {
        let (_, id) = each.iter().find(|(status, _)| *status == from).unwrap();
        let answer = did(&cluster, call, id).await;
        assert!(to.iter().any(|&to| answer["status"] == to), "{call} {from}: {answer}");
    }
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cancelled_run_nothing_is_cancelled_again_or_retried() {
    let cluster = Cluster::with(&[("RUNLANE_MAINTENANCE_INTERVAL", "1d")]).await;
    let models = ["mock/echo?fail=validation", ENDLESS];
    let run = cluster.run(&cluster.definition(3).await, &models, json!({ "maxConcurrency": 2 })).await;
    cluster.until(&run, "failed and waiting", |s| counts(s)[3] >= 1 && counts(s)[0] >= 1).await;
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    cluster.until(&run, "stopped", |s| counts(s)[1] == 0 && is_analysis(s, "BASIC", "COMPLETED")).await;
    let before = snapshot(&cluster, &run).await;
    for id in probes(&cluster, &run, "CANCELLED").await {
        let refused = act(&cluster, "cancelJob(id: $id)", &id).await;
        assert_eq!(refused.code(), "JOB_VALIDATION_ERROR");
        assert_eq!(refused.refusal()["currentStatus"], "CANCELLED");
    }
    for id in probes(&cluster, &run, "FAILED").await {
        let refused = act(&cluster, "retryJob(id: $id)", &id).await;
        assert_eq!(refused.code(), "JOB_VALIDATION_ERROR");
        let message = refused.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("CANCELLED"), "{message}");
    }
    assert_eq!(snapshot(&cluster, &run).await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_waits_is_cancelled_and_computed_on_demand() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/rater"], json!({})).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    queue(&cluster, "pauseQueue").await;
    let asked = did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    let id = |run: &Value| run["analyses"][1]["id"].as_str().unwrap().to_owned();
    let cancelled = did(&cluster, "cancelJob(id: $id)", &id(&asked)).await;
    assert_eq!((&cancelled["type"], &cancelled["status"]), (&json!("analyze:deep"), &json!("CANCELLED")));
    let state = cluster.state(&run).await;
    assert!(is_analysis(&state, "DEEP", "CANCELLED"));
    assert_eq!(state["status"], "COMPLETED");
    assert_eq!(counts(&state), [0, 0, 2, 0, 0], "progress counts probes");
    assert_eq!(act(&cluster, "retryJob(id: $id)", &id(&asked)).await.code(), "JOB_VALIDATION_ERROR");
    queue(&cluster, "resumeQueue").await;
    did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    cluster.until(&run, "computed", |s| is_analysis(s, "DEEP", "COMPLETED")).await;
    cluster.stop().await;
}
