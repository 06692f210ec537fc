//! Redriving: dead letters' jobs wait again as new epochs, once, whoever else does so too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::support::{ADA, acts, assert_entries_match_jobs, entries, failed_run, redrive, redriven};
use crate::control::support::{counts, did, is_analysis, job, queue};
use crate::queue::support::assert_books_balance;
use crate::support::app::Cluster;

/// Waits until nothing of the run moves by itself.
async fn at_rest(cluster: &Cluster, run: &str) {
    cluster.until(run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    queue(cluster, "pauseQueue").await;
}

/// One consistent look at the probes: failed and pending as counted, as the rows have it, and open entries.
async fn look(db: &PgPool) -> [i64; 5] {
    let (a, b, c, d, e): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "select sum(l.failed)::bigint, sum(l.pending)::bigint,
                (select count(*) from current_job j join lane k on k.id = j.lane_id where k.kind = 'probe:scenario' and j.state = 'failed'),
                (select count(*) from current_job j join lane k on k.id = j.lane_id where k.kind = 'probe:scenario' and j.state = 'pending'),
                (select count(*) from dead_letter d where d.status = 'pending')
           from lane l where l.kind = 'probe:scenario'",
    )
    .fetch_one(db)
    .await
    .unwrap();
    [a, b, c, d, e]
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_exact_at_every_moment_of_a_redrive_and_the_second_does_nothing() {
    const JOBS: i64 = 1_000;
    let cluster = Cluster::with(&[("RUNLANE_REDRIVE_BATCH", "40")]).await;
    let run = failed_run(&cluster, JOBS as usize).await;
    at_rest(&cluster, &run).await;

    let over = Arc::new(AtomicBool::new(false));
    let (db, is_over) = (cluster.db.clone(), Arc::clone(&over));
    let watcher = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            seen.push(look(&db).await);
        }
        seen
    });
    let report = redriven(&cluster, json!({ "filter": { "runId": run } })).await;
    over.store(true, Ordering::Relaxed);
    let seen = watcher.await.unwrap();
    assert_eq!((&report["matched"], &report["redriven"]), (&json!(JOBS), &json!(JOBS)));
    assert_eq!((&report["skipped"], &report["runs"]), (&json!([]), &json!([run])));
    let mut between = 0;
    let mut before = JOBS;
    for [failed, pending, failed_rows, pending_rows, open] in seen {
        assert_eq!([failed, pending], [failed_rows, pending_rows]);
        assert_eq!((failed + pending, open), (JOBS, failed), "every failed job has its open entry");
        assert!(failed <= before, "failed goes down only");
        between += i32::from(failed > 0 && failed < JOBS);
        before = failed;
    }
    assert!(between > 0, "the redrive was watched on its way");

    let state = cluster.state(&run).await;
    assert_eq!((&state["status"], counts(&state)), (&json!("RUNNING"), [JOBS, 0, 0, 0, 0]));
    assert!(state["completedAt"].is_null());
    let again = redriven(&cluster, json!({ "filter": { "runId": run } })).await;
    assert_eq!((&again["matched"], &again["redriven"]), (&json!(0), &json!(0)));
    let again =
        redriven(&cluster, json!({ "filter": { "runId": run, "status": "MANUALLY_RESOLVED" } })).await;
    assert_eq!((&again["redriven"], &again["skipped"][0]["why"]), (&json!(0), &json!("ALREADY_RESOLVED")));
    assert_eq!(cluster.state(&run).await, state);

    let kept = entries(&cluster.db).await;
    assert!(kept.iter().all(|e| e.status == "manually_resolved" && e.resolved_by.as_deref() == Some("ada")));
    let recorded = acts(&cluster.db, "redriveDeadLetters").await;
    assert_eq!(recorded.len(), JOBS as usize);
    assert!(recorded.iter().all(|(who, subject, after, _)| {
        who == "ada" && subject == "dead_letter" && after.as_ref().unwrap()["epoch"] == 1
    }));
    assert_books_balance(&cluster.db).await;
    assert_entries_match_jobs(&cluster.db).await;

    queue(&cluster, "resumeQueue").await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 0, JOBS, 0]);
    assert_eq!(entries(&cluster.db).await.len(), 2 * JOBS as usize, "each gave up once more");
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redrives_and_retries_at_the_same_time_redrive_each_job_once() {
    const JOBS: i64 = 300;
    let cluster = Cluster::with(&[("RUNLANE_REDRIVE_BATCH", "25")]).await;
    let run = failed_run(&cluster, JOBS as usize).await;
    at_rest(&cluster, &run).await;
    let all = json!({ "filter": { "runId": run } });
    let retry = async {
        // When the first batch of somebody has gone through.
        while look(&cluster.db).await[1] == 0 {
            tokio::task::yield_now().await;
        }
        did(&cluster, "retryFailedJobs(runId: $id)", &run).await
    };
    let (a, b, c, _) = tokio::join!(
        redriven(&cluster, all.clone()),
        redriven(&cluster, all.clone()),
        redriven(&cluster, all),
        retry
    );
    let sum: i64 = [a, b, c].iter().map(|r| r["redriven"].as_i64().unwrap()).sum();
    let by = |action: &'static str| acts(&cluster.db, action);
    assert_eq!(by("redriveDeadLetters").await.len() as i64, sum);
    assert_eq!(sum + by("dead_letter.retried").await.len() as i64, JOBS);
    let epochs: Vec<i32> = sqlx::query_scalar(
        "select distinct j.epoch from current_job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario'",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert_eq!(epochs, [1]);
    assert_eq!(counts(&cluster.state(&run).await), [JOBS, 0, 0, 0, 0]);
    assert_books_balance(&cluster.db).await;
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_changes_nothing_and_a_rate_spreads_the_jobs() {
    let cluster = Cluster::with(&[("RUNLANE_REDRIVE_BATCH", "7")]).await;
    let run = failed_run(&cluster, 20).await;
    at_rest(&cluster, &run).await;
    let before = (cluster.state(&run).await, entries(&cluster.db).await.len());
    let dry = redriven(&cluster, json!({ "filter": { "runId": run }, "rate": 60, "dry": true })).await;
    assert_eq!((&dry["matched"], &dry["redriven"], &dry["dryRun"]), (&json!(20), &json!(20), &json!(true)));
    assert_eq!((cluster.state(&run).await, entries(&cluster.db).await.len()), before);
    assert!(acts(&cluster.db, "redriveDeadLetters").await.is_empty());

    let report = redriven(&cluster, json!({ "filter": { "runId": run }, "rate": 60 })).await;
    let due: Vec<DateTime<Utc>> = sqlx::query_scalar(
        "select j.run_at from current_job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario' order by j.run_at",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let gaps: Vec<i64> = due.windows(2).map(|w| (w[1] - w[0]).num_milliseconds()).collect();
    assert_eq!(gaps, [1_000; 19], "60 a minute, across batches");
    let finishes: DateTime<Utc> = report["finishesAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(finishes.timestamp_micros(), due[19].timestamp_micros());
    let last: String = sqlx::query_scalar("select id::text from current_job order by run_at desc limit 1")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    queue(&cluster, "resumeQueue").await;
    let waiting = job(&cluster, &last).await;
    let why = waiting["waitingBecause"].as_str().unwrap();
    assert!(why.starts_with("It was put back and does not start before 20"), "{why}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_runs_are_skipped_failed_ones_reopened_and_paused_ones_stay_paused() {
    let cluster = Cluster::start().await;
    let models = ["mock/echo?fail=validation&failFirst=1", "mock/echo?delayMs=3600000"];
    let definition = cluster.definition(2).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        let run = cluster.run(&definition, &models, json!({ "maxConcurrency": 2 })).await;
        cluster.until(&run, "two failed", |s| counts(s)[3] == 2 && counts(s)[1] == 2).await;
        runs.push(run);
    }
    queue(&cluster, "pauseQueue").await;
    let [cancelled, failed, paused] = &runs[..] else { unreachable!("three") };
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", cancelled).await;
    did(&cluster, "pauseRun(id: $id)", paused).await;
    for id in crate::control::support::probes(&cluster, failed, "RUNNING").await {
        did(&cluster, "cancelJob(id: $id)", &id).await;
    }
    cluster.until_status(failed, "COMPLETED").await;
    crate::control::guard::stop(&cluster, failed).await;

    let report = redriven(&cluster, json!({ "filter": {} })).await;
    assert_eq!((&report["matched"], &report["redriven"]), (&json!(6), &json!(4)));
    assert_eq!(report["skipped"], json!([{ "why": "RUN_CANCELLED", "count": 2 }]));
    let mut expected = [failed.clone(), paused.clone()];
    expected.sort();
    assert_eq!(report["runs"], json!(expected));
    assert_eq!(cluster.state(cancelled).await["status"], "CANCELLED");
    let state = cluster.state(failed).await;
    assert_eq!((&state["status"], counts(&state)), (&json!("RUNNING"), [2, 0, 0, 0, 2]));
    let state = cluster.state(paused).await;
    assert_eq!((&state["status"], counts(&state)), (&json!("PAUSED"), [2, 2, 0, 0, 0]));
    let paused_lanes: i64 =
        sqlx::query_scalar("select count(*) from lane where run_id = $1::uuid and is_paused")
            .bind(paused)
            .fetch_one(&cluster.db)
            .await
            .unwrap();
    assert_eq!(paused_lanes, 2, "its jobs wait for the resume");
    let kept = entries(&cluster.db).await;
    assert_eq!(kept.iter().filter(|e| e.status == "pending").count(), 2, "those of the cancelled run");
    assert_entries_match_jobs(&cluster.db).await;
    for run in [failed, paused] {
        did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", run).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_failed_is_redriven_also_in_a_cancelled_run_and_computing_it_anew_closes_its_entry()
{
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    did(&cluster, "cancelRun(id: $id)", &run).await;
    let analysis: String = sqlx::query_scalar(
        "select j.id::text from current_job j join lane l on l.id = j.lane_id where l.kind = 'analyze:basic'",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    let open = async || entries(&cluster.db).await.iter().filter(|e| e.status == "pending").count();
    did(&cluster, "deadLetterJob(id: $id)", &analysis).await;
    assert_eq!(open().await, 1);
    let report = redrive(&cluster, ADA, json!({ "filter": { "runId": run } })).await;
    assert_eq!(report.data()["redriveDeadLetters"]["redriven"], 1);
    let history = cluster
        .user(
            "query($id: ID!) { job(id: $id) { history(first: 1) { nodes { action actor subjectKind } } } }",
            json!({ "id": analysis }),
        )
        .await;
    assert_eq!(
        history.data()["job"]["history"]["nodes"][0],
        json!({ "action": "redriveDeadLetters", "actor": "ada", "subjectKind": "dead_letter" }),
        "the job's history has what became of its dead letters"
    );
    assert_eq!(cluster.state(&run).await["status"], "CANCELLED");

    let again = [("startAnalysis(runId: $id, kind: BASIC)", &run), ("retryJob(id: $id)", &analysis)];
    for (n, (again, id)) in again.into_iter().enumerate() {
        did(&cluster, "deadLetterJob(id: $id)", &analysis).await;
        assert_eq!(open().await, 1);
        did(&cluster, again, id).await;
        assert_eq!(open().await, 0, "{again}");
        let recorded: Vec<Value> = acts(&cluster.db, "dead_letter.retried")
            .await
            .into_iter()
            .filter_map(|(.., after, _)| after)
            .collect();
        assert_eq!(
            (recorded.len(), &recorded[n]["jobId"]),
            (n + 1, &json!(analysis.parse::<i64>().unwrap()))
        );
        assert_entries_match_jobs(&cluster.db).await;
    }
    cluster.stop().await;
}
