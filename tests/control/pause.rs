//! Pause and resume.

use serde_json::json;

use super::support::{EAGER, claims, counts, did, is_analysis, looked, number, snapshot};
use crate::support::app::Cluster;

/// The latest claim of a run's probes, after its pause, in microseconds; negative: before.
const LAST_CLAIM: &str =
    "select (extract(epoch from max(coalesce(a.started_at, j.claimed_at)) - r.paused_at) * 1e6)::bigint
       from run r join lane l on l.run_id = r.id join current_job j on j.lane_id = l.id
       left join attempt a on a.job_id = j.id
      where r.id = $1 group by r.paused_at";

#[tokio::test(flavor = "multi_thread")]
async fn when_pause_run_has_returned_no_further_job_starts_anywhere() {
    let mut cluster = Cluster::with(&EAGER).await;
    cluster.add_node(&[]).await;
    cluster.add_node(&[]).await;
    let run = cluster.run(&cluster.definition(10_000).await, &["mock/echo?delayMs=5"], json!({})).await;
    cluster.until(&run, "well under way", |s| counts(s)[2] >= 100).await;

    let paused = did(&cluster, "pauseRun(id: $id)", &run).await;
    let started = claims(&cluster, &run).await;
    assert_eq!(paused["status"], "PAUSED");
    assert!(counts(&paused)[0] > 1_000, "the pause comes while much waits: {paused}");

    looked(&cluster).await;
    let settled = cluster.until(&run, "at rest", |s| counts(s)[1] == 0).await;
    assert_eq!(claims(&cluster, &run).await, started, "a job started after the pause had returned");
    assert!(number(&cluster, LAST_CLAIM, &run).await <= 0, "a claim is later than the pause");
    // What had started finished and is kept; no attempt was burnt, and none is counted twice.
    assert_eq!(counts(&settled), [10_000 - started, 0, started, 0, 0]);
    let completed = "select count(*) from lane l join current_job j on j.lane_id = l.id join attempt a on a.job_id = j.id
                      where l.run_id = $1 and a.outcome = 'completed' and j.failures + j.losses + j.throttles = 0";
    assert_eq!(number(&cluster, completed, &run).await, started);
    let attempts =
        "select count(*) from lane l join current_job j on j.lane_id = l.id join attempt a on a.job_id = j.id
                     where l.run_id = $1";
    assert_eq!(number(&cluster, attempts, &run).await, started);
    assert_eq!(settled["status"], "PAUSED");

    let resumed = did(&cluster, "resumeRun(id: $id)", &run).await;
    assert_eq!(resumed["status"], "RUNNING");
    cluster.until(&run, "going on", |s| counts(s)[2] > started).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_resume_goes_on() {
    let mut cluster = Cluster::with(&EAGER).await;
    let definition = cluster.definition(8).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=200"], json!({ "maxConcurrency": 2 })).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 2).await;
    let paused = did(&cluster, "pauseRun(id: $id)", &run).await;
    let started = claims(&cluster, &run).await;
    cluster.restart().await;
    looked(&cluster).await;
    let after = cluster.state(&run).await;
    assert_eq!(after["status"], "PAUSED");
    assert_eq!(after["startedAt"], paused["startedAt"]);
    assert_eq!(counts(&after), [8 - started, 0, started, 0, 0]);
    assert_eq!(claims(&cluster, &run).await, started);
    did(&cluster, "resumeRun(id: $id)", &run).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 8, 0, 0]);
    assert_eq!(claims(&cluster, &run).await, 8, "each job once: the pause burnt no attempt");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_run_that_was_paused_and_resumed_has_started_only_with_its_first_claim() {
    let mut cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    assert_eq!(cluster.state(&run).await["status"], "PENDING");
    let paused = did(&cluster, "pauseRun(id: $id)", &run).await;
    assert_eq!((&paused["status"], &paused["startedAt"]), (&json!("PAUSED"), &json!(null)));
    let resumed = did(&cluster, "resumeRun(id: $id)", &run).await;
    assert_eq!((&resumed["status"], &resumed["startedAt"]), (&json!("RUNNING"), &json!(null)));
    cluster.add_node(&[]).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert!(done["startedAt"].is_string(), "{done}");
    let late = "select (extract(epoch from r.started_at - min(a.started_at)) * 1e6)::bigint
                  from run r join lane l on l.run_id = r.id join current_job j on j.lane_id = l.id
                  join attempt a on a.job_id = j.id
                 where r.id = $1 and l.kind = 'probe:scenario' group by r.started_at";
    assert_eq!(number(&cluster, late, &run).await, 0, "it started with its first claim");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_whose_last_active_job_ends_with_nothing_waiting_is_completed_and_analysed() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/rater?delayMs=2500"], json!({})).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 1).await;
    let paused = did(&cluster, "pauseRun(id: $id)", &run).await;
    assert_eq!(paused["status"], "PAUSED");
    assert_eq!(counts(&paused), [0, 1, 0, 0, 0]);
    // It waits for a pause that ends with the run.
    let waiting = did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    assert!(is_analysis(&waiting, "DEEP", "PENDING"), "{waiting}");
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 1, 0, 0]);
    assert!(done["completedAt"].is_string());
    let analysed = cluster
        .until(&run, "analysed", |s| {
            is_analysis(s, "BASIC", "COMPLETED") && is_analysis(s, "DEEP", "COMPLETED")
        })
        .await;
    assert_eq!(super::support::coverage(&analysed, "BASIC"), Some([1, 1, 0]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_waits_and_says_so() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    let seen = snapshot(&cluster, &run).await;
    for job in seen["jobs"]["nodes"].as_array().unwrap() {
        assert_eq!(job["status"], "PENDING");
        assert!(job["waitingBecause"].as_str().unwrap().contains("paused"), "{job}");
    }
    cluster.stop().await;
}

/// Prints what a pause costs: no assertion, for time is no property of a shared machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_costs_the_same_for_ten_jobs_and_ten_thousand() {
    let cluster = Cluster::api_only(&[]).await;
    let mut updated = Vec::new();
    for n in [10, 10_000] {
        let run = cluster.run(&cluster.definition(n).await, &["mock/echo"], json!({})).await;
        let before = newest(&cluster).await;
        let start = std::time::Instant::now();
        did(&cluster, "pauseRun(id: $id)", &run).await;
        println!("pauseRun with {n} waiting jobs: {:?}", start.elapsed());
        let touched: i64 = sqlx::query_scalar("select count(*) from job where xmin::text::bigint > $1")
            .bind(before)
            .fetch_one(&cluster.db)
            .await
            .unwrap();
        updated.push(touched);
    }
    assert_eq!(updated, [0, 0], "a pause rewrites no job");
    cluster.stop().await;
}

/// The newest transaction that wrote a job.
async fn newest(cluster: &Cluster) -> i64 {
    sqlx::query_scalar("select max(xmin::text::bigint) from job").fetch_one(&cluster.db).await.unwrap()
}
