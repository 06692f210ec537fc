//! What is archived can be retried as if it were not.

use runlane::domain::leader::Duty;
use serde_json::json;

use super::{BY_HAND, archive, count, finished_run, mismatches};
use crate::control::support::{act, counts, did, job, probes};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn retry_failed_jobs_takes_them_back_with_their_history() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let ids = probes(&cluster, &run, "FAILED").await;
    let before = job(&cluster, &ids[0]).await;
    while archive(&cluster, 1_000).await > 0 {}

    let reopened = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(reopened["status"], "RUNNING");
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 23, 0, 1]);
    let after = job(&cluster, &ids[0]).await;
    assert_eq!(after["attempts"][0], before["attempts"][0]);
    assert_eq!(after["attempts"].as_array().unwrap().len(), 2);
    assert_eq!((&after["status"], &after["attempt"]), (&json!("COMPLETED"), &json!(2)));
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());

    // And it goes into the archive again.
    cluster.until(&run, "analysed", |s| crate::control::support::is_analysis(s, "BASIC", "COMPLETED")).await;
    while archive(&cluster, 1_000).await > 0 {}
    assert_eq!(count(&cluster, "select count(*) from archived_job").await, 24);
    assert_eq!(job(&cluster, &ids[0]).await, after);
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_job_takes_back_that_job_alone() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let (failed, completed) =
        (probes(&cluster, &run, "FAILED").await, probes(&cluster, &run, "COMPLETED").await);
    while archive(&cluster, 1_000).await > 0 {}

    let refused = act(&cluster, "retryJob(id: $id)", &completed[0]).await;
    assert_eq!(refused.code(), "JOB_VALIDATION_ERROR");
    let refused = act(&cluster, "cancelJob(id: $id)", &failed[0]).await;
    assert_eq!(refused.code(), "JOB_VALIDATION_ERROR");
    assert_eq!(count(&cluster, "select count(*) from archived_job").await, 24, "a refusal moves nothing");

    did(&cluster, "retryJob(id: $id)", &failed[3]).await;
    assert_eq!(count(&cluster, "select count(*) from archived_job").await, 23);
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 13, 10, 1]);
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_guard_had_stopped_reopens_from_the_archive() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = crate::control::guard::stopped(&cluster).await;
    assert_eq!(archive(&cluster, 1_000).await, 0, "rows are still to be rewritten");
    let store = runlane::store::Store::new(cluster.db.clone());
    let node = crate::staleness::register(&store).await;
    let leader = store.take_leadership(Duty::Maintenance, node).await.unwrap().expect("nobody else leads");
    while store.settle_closed_lanes(leader.term(), 5).await.unwrap() > 0 {}
    assert_eq!(archive(&cluster, 1_000).await, 12);

    let reopened = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(counts(&reopened), [11, 0, 0, 0, 1], "what its owner cancelled stays cancelled");
    assert_eq!(count(&cluster, "select count(*) from archived_job").await, 1);
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    cluster.add_node(&[]).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 6, 5, 1]);
    cluster.stop().await;
}
