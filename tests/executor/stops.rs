//! Cancel and release, answered and not.

use runlane::domain::ErrorCode;
use runlane::executor::{Executor, Finished, Job, Outcome, Settings, Spent, Stop, StopReason};
use serde_json::json;

use super::support::*;

/// Runs `job` and stops it as soon as `executor` has it in flight or in a process.
async fn stopped(executor: &Executor, job: Job, reason: StopReason) -> Finished {
    let (stopper, stop) = Stop::pair();
    let run = executor.run(job, stop);
    tokio::pin!(run);
    // The first poll places the job, since the worker is warm.
    tokio::select! {
        biased;
        finished = &mut run => panic!("{finished:?}"),
        () = std::future::ready(()) => {}
    }
    stopper.stop(reason);
    bounded(run).await
}

async fn warmed(executor: &Executor) {
    assert!(completed(&run(executor, job(1_000, &json!({ "act": "ok" }))).await));
}

#[tokio::test]
async fn an_answered_cancel_ends_the_job_and_not_the_worker() {
    let executor = Executor::new(settings("serve"));
    warmed(&executor).await;
    let cancelled = stopped(&executor, job(1, &json!({ "act": "hold" })), StopReason::Cancel).await;
    let Outcome::Cancelled { spent: Spent { usage: Some(usage), cost_usd } } = &cancelled.outcome else {
        panic!("{cancelled:?}")
    };
    assert!(usage.get().contains("\"input\": 5"));
    assert_eq!(cost_usd.unwrap().to_string(), "0.0125");
    let released = stopped(&executor, job(2, &json!({ "act": "hold" })), StopReason::Release).await;
    assert!(
        matches!(released.outcome, Outcome::Released { spent: Spent { usage: Some(_), cost_usd: Some(_) } }),
        "{released:?}"
    );
    assert_eq!(executor.snapshot().starts, 1);
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_result_that_was_back_before_the_cancel_counts() {
    let executor = Executor::new(settings("serve"));
    warmed(&executor).await;
    for reason in [StopReason::Cancel, StopReason::Release] {
        let act = json!({ "act": "hold", "on_cancel": "result" });
        assert!(completed(&stopped(&executor, job(1, &act), reason).await));
    }
    let failed =
        stopped(&executor, job(1, &json!({ "act": "hold", "on_cancel": "network" })), StopReason::Cancel)
            .await;
    assert!(matches!(&failed.outcome, Outcome::Failed(e) if e.code == ErrorCode::Network), "{failed:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn an_ignored_cancel_ends_the_process_and_leaves_its_neighbours_unsuspected() {
    for reason in [StopReason::Cancel, StopReason::Release] {
        let executor = Executor::new(impatient("serve"));
        warmed(&executor).await;
        let neighbours = run_all(&executor, (2..5).map(|n| job(n, &json!({ "act": "hold" }))).collect());
        tokio::pin!(neighbours);
        let deaf = job(1, &json!({ "act": "hold", "on_cancel": "deaf" }));
        let (deaf, neighbours) = tokio::join!(biased; stopped(&executor, deaf, reason), neighbours);
        match reason {
            StopReason::Cancel => {
                assert!(
                    matches!(deaf.outcome, Outcome::Cancelled { spent: Spent { usage: None, .. } }),
                    "{deaf:?}"
                )
            }
            StopReason::Release => {
                assert!(
                    matches!(deaf.outcome, Outcome::Released { spent: Spent { usage: None, .. } }),
                    "{deaf:?}"
                )
            }
        }
        for finished in &neighbours {
            let Outcome::Lost { code, alone, suspect, .. } = finished.outcome else { panic!("{finished:?}") };
            assert_eq!((code, alone, suspect), (ErrorCode::WorkerCrash, false, false));
        }
        assert_gone(deaf.worker_pid.unwrap());
        finish(&executor, []).await;
    }
}

#[tokio::test]
async fn a_one_shot_process_is_gone_before_its_job_is_cancelled() {
    for (stubborn, reason) in [
        (false, StopReason::Cancel),
        (true, StopReason::Cancel),
        (false, StopReason::Release),
        (true, StopReason::Release),
    ] {
        // Without SIGKILL the stubborn one would outlast the test.
        let executor = Executor::new(if stubborn { impatient("serve") } else { settings("serve") });
        let fifo = Fifo::new();
        let act = json!({ "act": "tell", "fifo": fifo.path, "stubborn": stubborn });
        let (stopper, stop) = Stop::pair();
        let (finished, pid) = tokio::join!(bounded(executor.run(alone(1, &act), stop)), async {
            let pid = told(&mut fifo.open().await).await;
            stopper.stop(reason);
            pid
        });
        match reason {
            StopReason::Cancel => {
                assert!(matches!(finished.outcome, Outcome::Cancelled { .. }), "{finished:?}")
            }
            StopReason::Release => {
                assert!(matches!(finished.outcome, Outcome::Released { .. }), "{finished:?}")
            }
        }
        assert_eq!(finished.worker_pid, Some(pid));
        assert_gone(pid);
        finish(&executor, []).await;
    }
}

#[tokio::test]
async fn a_cancel_that_follows_a_release_is_what_counts() {
    let executor = Executor::new(settings("serve"));
    warmed(&executor).await;
    let (stopper, stop) = Stop::pair();
    stopper.stop(StopReason::Release);
    stopper.stop(StopReason::Cancel);
    let finished = bounded(executor.run(job(1, &json!({ "act": "hold" })), stop)).await;
    assert!(matches!(finished.outcome, Outcome::Cancelled { .. }), "{finished:?}");
    assert_eq!(finished.worker_pid, None, "nothing was sent");
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_worker_to_start_is_stopped_at_once() {
    let executor = Executor::new(Settings { cancel_grace: SHORT, ..settings("silent") });
    let (stopper, stop) = Stop::pair();
    stopper.stop(StopReason::Cancel);
    let finished = bounded(executor.run(job(1, &json!({ "act": "ok" })), stop)).await;
    assert!(matches!(finished.outcome, Outcome::Cancelled { .. }), "{finished:?}");
    let waiting = stopped(&executor, job(2, &json!({ "act": "ok" })), StopReason::Release).await;
    assert!(matches!(waiting.outcome, Outcome::Released { .. }), "{waiting:?}");
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_one_shot_result_that_was_back_before_the_kill_counts() {
    let executor = Executor::new(impatient("serve"));
    let fifo = Fifo::new();
    let act = json!({ "act": "tell", "fifo": fifo.path, "stubborn": true, "answer": true });
    let (stopper, stop) = Stop::pair();
    let (finished, pid) = tokio::join!(bounded(executor.run(alone(1, &act), stop)), async {
        let pid = told(&mut fifo.open().await).await;
        stopper.stop(StopReason::Cancel);
        pid
    });
    assert!(completed(&finished), "{finished:?}");
    assert_gone(pid);
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_does_not_leave_its_job_running() {
    let executor = Executor::new(impatient("serve"));
    warmed(&executor).await;
    {
        let run = executor.run(job(1, &json!({ "act": "hold", "on_cancel": "deaf" })), Stop::never());
        tokio::pin!(run);
        tokio::select! {
            biased;
            finished = &mut run => panic!("{finished:?}"),
            () = std::future::ready(()) => {}
        }
    }
    // The deaf worker is ended, and its neighbour told why.
    let neighbour = run(&executor, job(2, &json!({ "act": "hold" }))).await;
    assert!(matches!(neighbour.outcome, Outcome::Lost { suspect: false, .. }), "{neighbour:?}");
    finish(&executor, []).await;
}
