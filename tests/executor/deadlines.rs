//! Jobs that take too long.

use std::time::Duration;

use runlane::domain::ErrorCode;
use runlane::executor::{Executor, Job, Outcome, Settings};
use serde_json::json;

use super::support::*;

fn overdue(job: Job) -> Job {
    Job { deadline: SHORT, ..job }
}

#[tokio::test]
async fn a_worker_that_answers_the_overrun_keeps_running_and_the_job_is_timed_out() {
    let executor = Executor::new(settings("serve"));
    let other = executor
        .run(job(2, &json!({ "act": "barrier", "n": 2, "then": "ok" })), runlane::executor::Stop::never());
    tokio::pin!(other);
    let late = overdue(job(1, &json!({ "act": "hold" })));
    let finished = tokio::select! {
        finished = run(&executor, late) => finished,
        other = &mut other => panic!("{other:?}"),
    };
    let Outcome::Failed(error) = &finished.outcome else { panic!("{finished:?}") };
    assert_eq!((error.code, error.retryable), (ErrorCode::Timeout, true));
    assert!(error.spent.usage.is_some(), "what was used is told");
    let (third, other) =
        tokio::join!(run(&executor, job(3, &json!({ "act": "barrier", "n": 2, "then": "ok" }))), other);
    assert!(completed(&third) && completed(&other));
    assert_eq!(other.worker_pid, finished.worker_pid);
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_result_that_comes_after_the_deadline_but_within_the_grace_counts() {
    let executor = Executor::new(settings("serve"));
    let finished = run(&executor, overdue(job(1, &json!({ "act": "hold", "on_cancel": "result" })))).await;
    assert!(completed(&finished), "{finished:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_worker_that_says_that_an_overdue_job_was_held_up_gets_as_long_again() {
    let grace = Duration::from_secs(1);
    let executor = Executor::new(Settings { cancel_grace: grace, ..settings("serve") });
    let held_up = json!({ "act": "hold", "on_cancel": "held up", "answers_after_s": 1.5 });
    let finished = run(&executor, overdue(job(1, &held_up))).await;
    assert!(completed(&finished), "{finished:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn it_gets_that_once() {
    let executor = Executor::new(impatient("serve"));
    let finished =
        run(&executor, overdue(job(1, &json!({ "act": "hold", "on_cancel": "alive for ever" })))).await;
    let Outcome::Failed(error) = &finished.outcome else { panic!("{finished:?}") };
    assert_eq!(error.code, ErrorCode::Timeout);
    assert_gone(finished.worker_pid.unwrap());
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_hang_alone_in_its_process_is_a_timeout() {
    let executor = Executor::new(impatient("serve"));
    for job in [
        job(1, &json!({ "act": "die", "then": "freeze" })),
        alone(2, &json!({ "act": "die", "then": "freeze" })),
    ] {
        let finished = run(&executor, overdue(job)).await;
        let Outcome::Failed(error) = &finished.outcome else { panic!("{finished:?}") };
        assert_eq!(error.code, ErrorCode::Timeout);
        assert_gone(finished.worker_pid.unwrap());
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_hang_in_a_shared_process_proves_nothing_and_makes_all_suspects() {
    let executor = Executor::new(impatient("serve"));
    let mut jobs: Vec<_> =
        (0..3).map(|n| job(n, &json!({ "act": "barrier", "n": 3, "then": "freeze" }))).collect();
    // The worker freezes when it has read all three, before it could read a cancel.
    jobs[1].deadline = SHORT;
    for finished in run_all(&executor, jobs).await {
        let Outcome::Lost { code, alone, suspect, .. } = finished.outcome else { panic!("{finished:?}") };
        assert_eq!((code, alone, suspect), (ErrorCode::WorkerCrash, false, true));
        assert_gone(finished.worker_pid.unwrap());
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_job_that_waits_for_a_free_one_shot_process_starts_later() {
    let executor = Executor::new(Settings { one_shot_workers: 1, ..settings("serve") });
    let jobs = (0..3).map(|n| alone(n, &json!({ "act": "ok" }))).collect();
    assert!(run_all(&executor, jobs).await.iter().all(completed));
    finish(&executor, []).await;
}
