//! Warm and one-shot workers that behave, and events that concern one job only.

use runlane::domain::{ErrorCode, JobKind};
use runlane::executor::{Executor, Outcome, Payload, Settings};
use serde_json::{Value, json};

use super::support::*;

#[tokio::test]
async fn two_hundred_jobs_are_in_flight_in_one_process_at_once() {
    let executor = Executor::new(settings("serve"));
    // No job is answered before the worker holds all of them.
    let act = json!({ "act": "barrier", "n": 200, "then": "ok" });
    let all = run_all(&executor, (0..200).map(|n| job(n, &act)).collect()).await;
    assert!(all.iter().all(completed));
    assert!(all.iter().all(|f| f.worker_pid == all[0].worker_pid && f.worker_pid.is_some()));
    assert_eq!(executor.snapshot().starts, 1);
    finish(&executor, [all[0].worker_pid]).await;
}

#[tokio::test]
async fn busy_workers_make_the_pool_start_more_up_to_its_size() {
    let executor = Executor::new(Settings { warm_workers: 3, ..settings("serve") });
    assert_eq!(executor.snapshot().starts, 0);
    let first = run(&executor, job(0, &json!({ "act": "ok" }))).await;
    assert_eq!(executor.snapshot().starts, 1);
    let all = run_all(&executor, (1..50).map(|n| job(n, &json!({ "act": "ok" }))).collect()).await;
    assert!(all.iter().all(completed));
    let snapshot = executor.snapshot();
    assert_eq!((snapshot.starts, snapshot.warm.len()), (3, 3));
    finish(&executor, all.iter().chain([&first]).map(|f| f.worker_pid)).await;
}

#[tokio::test]
async fn a_suspect_and_an_analysis_get_a_process_of_their_own_each() {
    let executor = Executor::new(settings("serve"));
    let warm = run(&executor, job(1, &json!({ "act": "ok" }))).await;
    let suspect = run(&executor, alone(2, &json!({ "act": "ok" }))).await;
    let analysis = run(&executor, kind_job(JobKind::AnalyzeBasic, 3, &json!({ "act": "ok" }))).await;
    assert!(completed(&warm) && completed(&suspect));
    let Outcome::Completed(Payload::Analysis(result)) = &analysis.outcome else { panic!("{analysis:?}") };
    assert_eq!(result.coverage.used, 1);
    assert!(warm.worker_pid != suspect.worker_pid && suspect.worker_pid != analysis.worker_pid);
    // A one-shot process is reaped before its job is answered.
    assert_gone(suspect.worker_pid.unwrap());
    assert_eq!((executor.snapshot().one_shots, executor.snapshot().processes), (2, 1));
    finish(&executor, [warm.worker_pid]).await;
}

#[tokio::test]
async fn an_error_is_told_as_the_worker_said_it() {
    let executor = Executor::new(settings("serve"));
    let act = json!({ "act": "error", "code": "rate_limit",
        "more": { "retryAfterMs": 1500, "httpStatus": 429, "detail": { "limit": "rpm" } } });
    for job in [job(1, &act), alone(2, &act)] {
        let finished = run(&executor, job).await;
        let Outcome::Failed(error) = &finished.outcome else { panic!("{finished:?}") };
        assert_eq!(error.code, ErrorCode::RateLimit);
        assert_eq!(error.retry_after.unwrap().as_millis(), 1500);
        assert_eq!((error.http_status, error.retryable), (Some(429), false));
        assert_eq!(error.detail, Some(json!({ "limit": "rpm" })));
        assert_eq!(error.spent.usage.as_ref().unwrap().get(), r#"{"input": 5, "output": 0}"#);
    }
    let cheat = run(&executor, job(3, &json!({ "act": "error", "code": "worker_crash" }))).await;
    assert!(matches!(&cheat.outcome, Outcome::Failed(e) if e.code == ErrorCode::Unknown), "{cheat:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_second_answer_and_one_for_an_unknown_job_are_counted_and_ignored() {
    let executor = Executor::new(settings("serve"));
    for (n, act) in [(1, "twice"), (2, "stranger")] {
        let warm = run(&executor, job(n, &json!({ "act": act }))).await;
        assert_eq!(response(&warm), "ok");
        // Ordered behind the ignored event in the same pipe.
        assert!(completed(&run(&executor, job(n + 10, &json!({ "act": "ok" }))).await));
        assert_eq!(executor.snapshot().ignored_events, 2 * n as u64 - 1);
        let one_shot = run(&executor, alone(n, &json!({ "act": act }))).await;
        assert_eq!(response(&one_shot), "ok");
        assert_eq!(executor.snapshot().ignored_events, 2 * n as u64);
    }
    assert_eq!(executor.snapshot().starts, 1);
    finish(&executor, []).await;
}

#[tokio::test]
async fn an_answer_of_a_wrong_shape_costs_only_the_job_that_it_names() {
    let executor = Executor::new(settings("serve"));
    let mut jobs: Vec<_> =
        (1..3).map(|n| job(n, &json!({ "act": "barrier", "n": 2, "then": "ok" }))).collect();
    jobs.insert(1, job(3, &json!({ "act": "shape" })));
    let all = run_all(&executor, jobs).await;
    assert!(completed(&all[0]) && completed(&all[2]));
    let Outcome::Lost { code, message, alone, suspect, .. } = &all[1].outcome else { panic!("{all:?}") };
    assert_eq!((*code, *alone, *suspect), (ErrorCode::MalformedOutput, false, true));
    assert!(message.contains("`transcript` has a wrong shape"), "{message}");
    assert_eq!(executor.snapshot().starts, 1);
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_one_shot_worker_may_print_its_answer_over_many_lines() {
    let executor = Executor::new(settings("serve"));
    let finished = run(&executor, alone(1, &json!({ "act": "pretty" }))).await;
    assert!(matches!(&finished.outcome, Outcome::Failed(e) if e.code == ErrorCode::Network), "{finished:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn workers_see_only_the_environment_that_is_listed() {
    let settings = Settings {
        environment: vec![("PATH".into(), "/bin".into()), ("SOME_API_KEY".into(), "k-123456789".into())],
        ..settings("serve")
    };
    let executor = Executor::new(settings);
    for job in [job(1, &json!({ "act": "env" })), alone(2, &json!({ "act": "env" }))] {
        let environment: Value = serde_json::from_str(&response(&run(&executor, job).await)).unwrap();
        let mut names: Vec<_> = environment.as_object().unwrap().keys().map(String::as_str).collect();
        // Python sets LC_CTYPE itself in the C locale.
        names.retain(|name| *name != "LC_CTYPE");
        assert_eq!(names, ["PATH", "RUNLANE_WORK_DIR", "SOME_API_KEY", "TMPDIR"]);
        assert!(std::env::vars().count() > 2, "the test's own environment has more");
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_flood_of_stderr_blocks_nobody_and_its_end_is_kept_without_secrets() {
    let executor = Executor::new(Settings { secrets: vec!["sk-very-secret".into()], ..settings("serve") });
    let act = json!({ "act": "stderr", "chunks": 200, "say": "key=sk-very-secret" });
    let one_shot = run(&executor, alone(1, &act)).await;
    assert!(completed(&one_shot));
    let tail = &one_shot.stderr_tail;
    assert!(tail.ends_with("eethe end \u{FFFD} key=[redacted]"), "{tail}");
    assert!(tail.len() <= 1_010 && !tail.contains("begin"));
    assert!(completed(&run(&executor, job(2, &act)).await));
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_job_whose_id_is_in_flight_already_gets_a_process_of_its_own() {
    let executor = Executor::new(settings("serve"));
    let held = job(1, &json!({ "act": "barrier", "n": 2, "then": "ok" }));
    let release = async {
        // Another claim of the same job: polled second, so the first is in flight.
        let twin = run(&executor, job(1, &json!({ "act": "ok" }))).await;
        let other = run(&executor, job(2, &json!({ "act": "barrier", "n": 2, "then": "ok" }))).await;
        (twin, other)
    };
    assert!(completed(&run(&executor, job(3, &json!({ "act": "ok" }))).await), "the worker is ready");
    let (first, (twin, other)) = tokio::join!(biased; run(&executor, held), release);
    assert!(completed(&first) && completed(&twin) && completed(&other));
    assert_eq!(first.worker_pid, other.worker_pid);
    assert_ne!(first.worker_pid, twin.worker_pid);
    finish(&executor, []).await;
}
