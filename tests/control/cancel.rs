//! Cancelling a run.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    EAGER, ENDLESS, claims, counts, coverage, did, is_analysis, job, jobs, looked, number, probes, snapshot,
};
use crate::support::app::{Cluster, PATIENCE, python};

const UNWRITTEN: &str = "select count(*) from lane l join current_job j on j.lane_id = l.id
                          where l.run_id = $1 and j.state = 'pending'";

#[tokio::test(flavor = "multi_thread")]
async fn graceful_cancels_what_waits_at_once_and_keeps_what_runs() {
    let ok = "mock/echo?delayMs=2500";
    let fails = "mock/echo?delayMs=2500&fail=network";
    let mut cluster = Cluster::with(&[("RUNLANE_MAINTENANCE_INTERVAL", "1d"), EAGER[0], EAGER[1]]).await;
    let definition = cluster.definition(20).await;
    let run = cluster.run(&definition, &[ok, fails], json!({ "maxConcurrency": 4 })).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 4).await;
    let waiting = probes(&cluster, &run, "PENDING").await;

    let cancelled = did(&cluster, "cancelRun(id: $id)", &run).await;
    assert_eq!(cancelled["status"], "CANCELLED");
    assert!(cancelled["completedAt"].is_string());
    assert_eq!(counts(&cancelled), [0, 4, 0, 0, 36]);
    assert_eq!(cancelled["progress"]["percentComplete"], 90.0);
    for model in cancelled["progress"]["byModel"].as_array().unwrap() {
        assert_eq!((&model["active"], &model["cancelled"]), (&json!(2), &json!(18)), "{model}");
    }
    cancelled_everywhere(&cluster, &run, &waiting, ok).await;
    assert_eq!(number(&cluster, UNWRITTEN, &run).await, 36, "no row is rewritten yet: it holds all the same");

    // What runs finishes and is kept, and nothing is retried, though `network` would be.
    let rest = cluster
        .until(&run, "ended and analysed", |s| counts(s)[1] == 0 && is_analysis(s, "BASIC", "COMPLETED"))
        .await;
    assert_eq!(counts(&rest), [0, 0, 2, 2, 36]);
    assert_eq!(rest["status"], "CANCELLED");
    assert_eq!(coverage(&rest, "BASIC"), Some([40, 2, 2]));
    looked(&cluster).await;
    assert_eq!(claims(&cluster, &run).await, 4, "nothing starts any more");
    for id in probes(&cluster, &run, "FAILED").await {
        let failed = job(&cluster, &id).await;
        assert_eq!((&failed["attempt"], &failed["failures"]), (&json!(1), &json!(1)));
        assert_eq!(failed["attempts"][0]["outcome"], "FAILED");
    }

    // Then maintenance rewrites the rows, and nobody can see it.
    let before = snapshot(&cluster, &run).await;
    assert_eq!(number(&cluster, UNWRITTEN, &run).await, 36);
    // The node that has led so far looks once a day; another one follows it.
    sqlx::query("select pg_terminate_backend(backend_pid) from leadership")
        .execute(&cluster.db)
        .await
        .unwrap();
    cluster.add_node(&[("RUNLANE_MAINTENANCE_INTERVAL", "50ms")]).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while number(&cluster, UNWRITTEN, &run).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "maintenance rewrites no row");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(snapshot(&cluster, &run).await, before);
    cancelled_everywhere(&cluster, &run, &waiting, ok).await;
    cluster.stop().await;
}

/// What waited is cancelled in every list, filter, count and status.
async fn cancelled_everywhere(cluster: &Cluster, run: &str, waiting: &[String], model: &str) {
    let probe = "probe:scenario";
    let (total, nodes) = jobs(cluster, run, json!({ "status": ["CANCELLED"], "type": [probe] })).await;
    assert_eq!((total, nodes.len()), (36, 36));
    let mut ids: Vec<&str> = nodes.iter().map(|j| j["id"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = waiting.iter().map(String::as_str).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    for node in &nodes {
        assert_eq!(node["status"], "CANCELLED");
        assert!(node["completedAt"].is_string() && node["waitingBecause"].is_null(), "{node}");
        assert_eq!(node["attempt"], 0);
    }
    let (total, nodes) = jobs(cluster, run, json!({ "status": ["PENDING"], "type": [probe] })).await;
    assert_eq!((total, nodes.len()), (0, 0));
    let (total, nodes) =
        jobs(cluster, run, json!({ "status": ["CANCELLED", "PENDING"], "modelId": model })).await;
    assert_eq!((total, nodes.len()), (18, 18));
    assert_eq!(job(cluster, &waiting[0]).await["status"], "CANCELLED");
    let query = "{ queueStatus { jobs { type pending } } }";
    let queue = cluster.admin(query, json!({})).await;
    assert_eq!(queue.data()["queueStatus"]["jobs"][0], json!({ "type": probe, "pending": 0 }));
    let query = "{ runs(filter: { status: [CANCELLED] }) { totalCount nodes { id } } }";
    assert_eq!(cluster.admin(query, json!({})).await.data()["runs"]["nodes"], json!([{ "id": run }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn immediate_stops_what_runs_at_once() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(10).await, &[ENDLESS], json!({ "maxConcurrency": 4 })).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 4).await;
    let cancelled = did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    assert_eq!(cancelled["status"], "CANCELLED");
    assert_eq!(counts(&cancelled)[0], 0);
    let stopped = cluster.until(&run, "stopped", |s| counts(s)[1] == 0).await;
    assert_eq!(counts(&stopped), [0, 0, 0, 0, 10]);
    assert_eq!(claims(&cluster, &run).await, 4);
    let outcomes =
        "select count(*) from lane l join current_job j on j.lane_id = l.id join attempt a on a.job_id = j.id
                     where l.run_id = $1 and a.outcome = 'cancelled' and a.error_code = 'cancelled'";
    assert_eq!(number(&cluster, outcomes, &run).await, 4);
    // There is nothing to analyse, and the analysis says so.
    let analysed = cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    assert_eq!(coverage(&analysed, "BASIC"), Some([10, 0, 0]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stays_active_until_its_process_has_let_go() {
    // An interpreter that notes the process ids of the workers and what they say.
    let dir = tempfile::tempdir().unwrap();
    let [pids, said, interpreter] = ["pids", "said", "python"].map(|name| dir.path().join(name));
    let script = format!(
        "#!/bin/sh\necho $$ >> '{}'\nexec '{}' \"$@\" 2>> '{}'\n",
        pids.display(),
        python().display(),
        said.display()
    );
    std::fs::write(&interpreter, script).unwrap();
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster::with(&[
        ("RUNLANE_PYTHON", interpreter.to_str().unwrap()),
        ("RUNLANE_WORKER_CANCEL_GRACE_MS", "500"),
        ("RUNLANE_WORKER_TERM_GRACE_MS", "500"),
        ("RUNLANE_WORKER_RESTART_BASE_MS", "60000"),
        ("RUNLANE_WORKER_RESTART_MAX_MS", "60000"),
    ])
    .await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo?hang=1"], json!({})).await;
    let hangs = |_: &Value| std::fs::read_to_string(&said).is_ok_and(|text| text.contains("hangs"));
    cluster.until(&run, "hanging", hangs).await;
    let noted = std::fs::read_to_string(&pids).unwrap();
    let worker = nix::unistd::Pid::from_raw(noted.lines().next().unwrap().parse().unwrap());
    let lives = || nix::sys::signal::kill(worker, None).is_ok();
    assert!(lives());

    let cancelled = did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    assert_eq!(cancelled["status"], "CANCELLED");
    assert_eq!(counts(&cancelled), [0, 1, 0, 0, 0], "the run is cancelled, its job still runs");
    let stopped = cluster
        .until(&run, "stopped", |s| {
            let is_active = counts(s)[1] == 1;
            assert!(is_active || !lives(), "the job has ended, and its process lives");
            !is_active
        })
        .await;
    assert_eq!(counts(&stopped), [0, 0, 0, 0, 1]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn immediate_after_graceful_still_stops_what_runs() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(3).await, &[ENDLESS], json!({ "maxConcurrency": 2 })).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 2).await;
    let graceful = did(&cluster, "cancelRun(id: $id)", &run).await;
    assert_eq!(counts(&graceful), [0, 2, 0, 0, 1]);
    let again = did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    assert_eq!(again["completedAt"], graceful["completedAt"], "it ended when it was cancelled first");
    let stopped = cluster.until(&run, "stopped", |s| counts(s)[1] == 0).await;
    assert_eq!(counts(&stopped), [0, 0, 0, 0, 3]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_twice_changes_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    for mode in ["GRACEFUL", "IMMEDIATE"] {
        let run = cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({})).await;
        let call = format!("cancelRun(id: $id, mode: {mode})");
        let first = did(&cluster, &call, &run).await;
        assert_eq!(first["status"], "CANCELLED");
        let before = snapshot(&cluster, &run).await;
        let second: Value = did(&cluster, &call, &run).await;
        assert_eq!(second["revision"], first["revision"]);
        did(&cluster, "cancelRun(id: $id, mode: GRACEFUL)", &run).await;
        assert_eq!(snapshot(&cluster, &run).await, before, "{mode}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_began_before_the_last_probe_of_a_cancelled_run_ended_is_computed_anew() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(4).await;
    let run = cluster.run(&definition, &["mock/rater?delayMs=4000"], json!({ "maxConcurrency": 1 })).await;
    cluster.until(&run, "started", |s| counts(s)[1] == 1).await;
    did(&cluster, "cancelRun(id: $id)", &run).await;
    did(&cluster, "startAnalysis(runId: $id, kind: BASIC)", &run).await;
    let ended = cluster
        .until(&run, "ended and analysed", |s| counts(s)[2] == 1 && coverage(s, "BASIC") == Some([4, 1, 0]))
        .await;
    assert_eq!(counts(&ended), [0, 0, 1, 0, 3]);
    cluster.stop().await;
}
