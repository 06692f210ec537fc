//! Workers that die, hang or talk nonsense: each costs its own job attempts, and no other job anything.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::support::{assert_books_balance, attempts, jobs, quick, until_sql};
use crate::support::app::{Cluster, python};

/// Runs two probes of `model` among six well-behaved ones that share the warm process with them. All but `model`'s must
/// complete without a failure; returns the codes and outcomes of `model`'s attempts, and the stderr with them.
async fn spoil(model: &str, timeout_s: u32, settings: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let cluster = Cluster::with(&quick(settings)).await;
    let definition = cluster.definition(2).await;
    let models = [model, "mock/echo?delayMs=150", "mock/echo?delayMs=300", "mock/rater?delayMs=50"];
    let run = cluster.run(&definition, &models, json!({ "params": { "timeoutSeconds": timeout_s } })).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 6, "{state:#}");
    assert_eq!(state["progress"]["failed"], 2, "{state:#}");
    for job in jobs(&cluster.db, &run).await {
        if job.model == model {
            assert_eq!(job.state, "failed", "{job:?}");
        } else {
            assert_eq!((job.state.as_str(), job.failures, job.losses_alone), ("completed", 0, 0), "{job:?}");
        }
    }
    assert_books_balance(&cluster.db).await;
    let attempts = attempts(&cluster.db).await;
    cluster.stop().await;
    attempts
        .into_iter()
        .filter(|a| a.model.as_deref() == Some(model))
        .map(|a| (a.outcome, a.error_code.unwrap_or_default(), a.stderr_tail.unwrap_or_default()))
        .collect()
}

/// On a busy machine a process that was killed closes its outputs long before its end can be had; one that takes longer than its
/// grace is killed, and SIGKILL does not say by whom.
const TIME_TO_DIE: (&str, &str) = ("RUNLANE_WORKER_TERM_GRACE_MS", "60000");

/// A crash loop: every loss was while alone but the first at most, and none counts as a failure.
async fn assert_crash_loop(model: &str, code: &str) {
    let cluster = Cluster::with(&quick(&[TIME_TO_DIE])).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &[model], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let job = jobs(&cluster.db, &run).await.remove(0);
    assert_eq!((job.state.as_str(), job.error_code.as_deref()), ("failed", Some(code)), "{job:?}");
    assert_eq!((job.failures, job.losses, job.losses_alone, job.claims), (0, 3, 3, 3), "{job:?}");
    let outcomes: Vec<String> = attempts(&cluster.db).await.into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["lost", "lost", "failed"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_losses_while_alone_are_a_crash_loop() {
    assert_crash_loop("mock/echo?crash=exit", "worker_crash").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_costs_only_its_own_job() {
    let ends = spoil("mock/echo?crash=exit", 120, &[TIME_TO_DIE]).await;
    assert!(ends.iter().all(|(o, c, _)| (o == "lost" || o == "failed") && c == "worker_crash"), "{ends:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segmentation_fault_costs_only_its_own_job() {
    let ends = spoil("mock/echo?crash=segv", 120, &[TIME_TO_DIE]).await;
    assert!(ends.iter().all(|(o, c, _)| (o == "lost" || o == "failed") && c == "worker_crash"), "{ends:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_memory_costs_only_its_own_job() {
    let ends = spoil("mock/echo?crash=oom", 120, &[TIME_TO_DIE]).await;
    assert!(ends.iter().all(|(o, c, _)| (o == "lost" || o == "failed") && c == "worker_crash"), "{ends:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_stdout_costs_only_its_own_job() {
    let ends = spoil("mock/echo?stdout=garbage", 120, &[]).await;
    assert!(
        ends.iter().all(|(o, c, _)| (o == "lost" || o == "failed") && c == "malformed_output"),
        "{ends:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_on_stdout_costs_only_its_own_job() {
    let ends = spoil("mock/echo?stdout=huge", 120, &[("RUNLANE_WORKER_LINE_MAX_BYTES", "100000")]).await;
    assert!(
        ends.iter().all(|(o, c, _)| (o == "lost" || o == "failed") && c == "malformed_output"),
        "{ends:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_worker_is_ended_and_costs_only_its_own_job() {
    let ends = spoil("mock/echo?hang=1", 15, &[("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "0")]).await;
    let failed: Vec<_> = ends.iter().filter(|(o, ..)| o == "failed").collect();
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|(_, code, _)| code == "timeout"), "{ends:#?}");
    assert!(
        failed.iter().all(|(_, _, stderr)| stderr.contains("the mock hangs, as asked")),
        "the end of stderr is kept with the attempt: {ends:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_can_be_started_for_is_given_back_and_says_why() {
    let mut cluster = Cluster::api_only(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "2")])).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.add_node(&[("RUNLANE_PYTHON", "/no/such/python")]).await;
    until_sql(&cluster.db, "given back", "select count(*) >= 2 from attempt").await;
    for attempt in attempts(&cluster.db).await {
        assert_eq!((attempt.outcome.as_str(), attempt.error_code), ("released", None));
        let why = attempt.stderr_tail.unwrap();
        assert!(why.contains("/no/such/python") && why.contains("No such file"), "{why}");
    }
    for job in jobs(&cluster.db, &run).await {
        assert_eq!((job.failures, job.losses), (0, 0), "nobody is blamed: {job:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_workers_do_not_start_holds_up_nobody_else() {
    let python = python();
    let script = tempfile::Builder::new().suffix(".sh").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let text = format!(
        "#!/bin/sh\nif [ -n \"$OPENAI_API_KEY\" ]; then echo 'no client' >&2; exit 1; fi\nexec {} \"$@\"\n",
        python.display()
    );
    std::fs::write(&script, text).unwrap();
    // Closed, so that it may be executed.
    let script = script.into_temp_path();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut cluster = Cluster::api_only(&quick(&[
        ("OPENAI_API_KEY", "sk-a-key"),
        ("RUNLANE_WORKER_CONCURRENCY", "2"),
        ("RUNLANE_WORKER_RESTART_BASE_MS", "60000"),
        ("RUNLANE_WORKER_RESTART_MAX_MS", "60000"),
    ]))
    .await;
    let definition = cluster.definition(4).await;
    cluster.run(&definition, &["openai/gpt-5"], json!({})).await;
    cluster.add_node(&[("RUNLANE_PYTHON", script.to_str().unwrap())]).await;
    until_sql(&cluster.db, "given back", "select count(*) >= 2 from attempt").await;
    let other = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until_status(&other, "COMPLETED").await;
    let attempts = attempts(&cluster.db).await;
    let (openai, mock): (Vec<_>, Vec<_>) =
        attempts.iter().partition(|a| a.model.as_deref() == Some("openai/gpt-5"));
    for attempt in &openai {
        assert_eq!(attempt.outcome, "released");
        let why = attempt.stderr_tail.as_deref().unwrap();
        assert!(why.contains("no client"), "{why}");
    }
    let given_back = openai.iter().map(|a| a.ended_at).min().unwrap();
    let begun = mock.iter().filter(|a| a.model.is_some()).map(|a| a.started_at).max().unwrap();
    assert!((begun - given_back).num_seconds() < 50, "others wait for 60 s as well: {attempts:#?}");
    assert!(openai.len() <= 4, "none is claimed again meanwhile: {openai:#?}");
    cluster.stop().await;
}
