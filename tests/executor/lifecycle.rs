//! Starts that fail, shutdown, and letting go of everything at once.

use std::time::Duration;

use runlane::domain::JobKind;
use runlane::executor::{Executor, Finished, Outcome, Settings, Spent, Stop, StopReason};
use serde_json::json;

use super::support::*;

fn unstartable(finished: &Finished) -> (&str, Duration) {
    match &finished.outcome {
        Outcome::Unstartable { message, retry_after } => (message, *retry_after),
        _ => panic!("{finished:?}"),
    }
}

#[tokio::test]
async fn workers_that_do_not_start_blame_no_job_and_say_why() {
    let hour = Duration::from_secs(3_600);
    let missing = Settings { worker_command: vec!["/no/such/python".into()], ..settings("serve") };
    for (settings, says) in [
        (settings("never"), "exited with 1; its stderr ends with: no module named runlane_worker"),
        (impatient("chatter"), "Welcome"),
        (Settings { start_timeout: SHORT, ..settings("silent") }, "did not say hello in time"),
        (missing, "could not be started"),
        (Settings { worker_command: Vec::new(), ..settings("serve") }, "command is empty"),
    ] {
        let executor = Executor::new(Settings { restart_base: hour, restart_max: hour, ..settings });
        let jobs = (0..20).map(|n| job(n, &json!({ "act": "ok" }))).collect();
        for finished in &run_all(&executor, jobs).await {
            let (message, retry_after) = unstartable(finished);
            assert!(message.contains(says), "{message}");
            assert!(retry_after > hour / 2);
            assert_eq!(finished.worker_pid, None);
        }
        // The wait holds: no start was tried again.
        unstartable(&run(&executor, job(50, &json!({ "act": "ok" }))).await);
        assert_eq!((executor.snapshot().starts, executor.snapshot().failed_starts), (1, 1));
        finish(&executor, []).await;
    }
}

#[tokio::test]
async fn a_one_shot_process_that_cannot_be_started_blames_no_job() {
    let executor =
        Executor::new(Settings { worker_command: vec!["/no/such/python".into()], ..settings("serve") });
    let finished = run(&executor, alone(1, &json!({ "act": "ok" }))).await;
    assert!(unstartable(&finished).0.contains("could not be started"));
    finish(&executor, []).await;
}

#[tokio::test]
async fn the_wait_after_one_shot_processes_that_do_not_start_doubles_for_all_of_their_kind() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("python");
    let mut settings = settings("serve");
    std::os::unix::fs::symlink(&settings.worker_command[0], place.path().join("real")).unwrap();
    settings.worker_command[0] = program.clone().into();
    settings.restart_base = Duration::from_millis(20);
    settings.restart_max = Duration::from_millis(80);
    let executor = Executor::new(settings);
    let probe = |n| alone(n, &json!({ "act": "ok" }));
    for expected in [20, 40, 80, 80].map(Duration::from_millis) {
        // What fails at the same time is one failure, and nothing is tried until the wait is over.
        let failed = run_all(&executor, (0..4).map(probe).collect()).await;
        let waits: Vec<Duration> = failed.iter().map(|f| unstartable(f).1).collect();
        assert_eq!(waits.iter().max(), Some(&expected), "{waits:?}");
        let analysis = kind_job(JobKind::AnalyzeBasic, 9, &json!({ "act": "ok" }));
        let other = unstartable(&run(&executor, analysis).await).1;
        assert!(
            expected.as_millis() > 20 || other == expected,
            "the other kind has its own count: {other:?}"
        );
        tokio::time::sleep(expected).await;
    }
    assert_eq!(executor.snapshot().one_shots, 0);
    // A start that works ends the count.
    std::fs::rename(place.path().join("real"), &program).unwrap();
    assert!(completed(&run(&executor, probe(5)).await));
    assert_eq!(executor.snapshot().one_shots, 1);
    std::fs::remove_file(&program).unwrap();
    assert_eq!(unstartable(&run(&executor, probe(6)).await).1, Duration::from_millis(20));
    finish(&executor, []).await;
}

#[tokio::test]
async fn after_a_failed_start_the_next_one_serves() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings("once");
    settings.worker_command.push(directory.path().join("tried").into());
    settings.restart_base = Duration::ZERO;
    let executor = Executor::new(settings);
    // There is no wait between the starts, so the job stays for the second.
    assert!(completed(&run(&executor, job(2, &json!({ "act": "ok" }))).await));
    assert_eq!((executor.snapshot().starts, executor.snapshot().failed_starts), (2, 1));
    finish(&executor, []).await;
}

#[tokio::test]
async fn an_idle_worker_that_dies_is_replaced_without_a_wait() {
    let executor = Executor::new(settings("serve"));
    let first = run(&executor, job(1, &json!({ "act": "ok" }))).await;
    let pid = nix::unistd::Pid::from_raw(first.worker_pid.unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // It had served: another is started at once, whether or not the death is known yet.
    let second = run(&executor, job(2, &json!({ "act": "ok" }))).await;
    match second.outcome {
        Outcome::Completed(_) => assert_ne!(second.worker_pid, first.worker_pid),
        Outcome::Lost { .. } => {}
        _ => panic!("{second:?}"),
    }
    assert_eq!(executor.snapshot().failed_starts, 0);
    finish(&executor, []).await;
}

#[tokio::test]
async fn shutdown_releases_what_runs_refuses_what_comes_and_leaves_no_process() {
    let executor = Executor::new(settings("serve"));
    let warm = run(&executor, job(0, &json!({ "act": "ok" }))).await;
    let fifo = Fifo::new();
    let held = executor.run(job(1, &json!({ "act": "hold" })), Stop::never());
    let alone = executor.run(alone(2, &json!({ "act": "tell", "fifo": fifo.path })), Stop::never());
    let (held, alone, ()) = tokio::join!(bounded(held), bounded(alone), async {
        told(&mut fifo.open().await).await;
        bounded(executor.shutdown()).await;
    });
    assert!(matches!(held.outcome, Outcome::Released { spent: Spent { usage: Some(_), .. } }), "{held:?}");
    assert!(matches!(alone.outcome, Outcome::Released { .. }), "{alone:?}");
    let late = run(&executor, job(3, &json!({ "act": "ok" }))).await;
    assert!(matches!(late.outcome, Outcome::Released { .. }), "{late:?}");
    finish(&executor, [warm.worker_pid, alone.worker_pid]).await;
}

#[tokio::test]
async fn a_node_can_let_go_of_everything_at_once_and_go_on() {
    // Graces of a minute, and workers that ignore SIGTERM: only SIGKILL ends this in time.
    let executor = Executor::new(settings("serve"));
    let (fifo, other) = (Fifo::new(), Fifo::new());
    let act = |fifo: &Fifo| json!({ "act": "tell", "fifo": fifo.path, "stubborn": true });
    let warm = executor.run(job(1, &act(&fifo)), Stop::never());
    let alone = executor.run(alone(2, &act(&other)), Stop::never());
    let (warm, alone, elapsed) = tokio::join!(bounded(warm), bounded(alone), async {
        told(&mut fifo.open().await).await;
        told(&mut other.open().await).await;
        let start = std::time::Instant::now();
        bounded(executor.kill_all()).await;
        start.elapsed()
    });
    assert!(elapsed < BOUND, "{elapsed:?}");
    for finished in [&warm, &alone] {
        assert!(
            matches!(finished.outcome, Outcome::Released { spent: Spent { usage: None, .. } }),
            "{finished:?}"
        );
        assert_gone(finished.worker_pid.unwrap());
    }
    assert!(completed(&run(&executor, job(3, &json!({ "act": "ok" }))).await));
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_on_purpose_while_it_starts_is_no_failed_start() {
    let executor = Executor::new(settings("silent"));
    let (stopper, stop) = Stop::pair();
    let (finished, ()) = tokio::join!(bounded(executor.run(job(1, &json!({ "act": "ok" })), stop)), async {
        while executor.snapshot().warm.iter().all(|(pid, _)| pid.is_none()) {
            tokio::task::yield_now().await;
        }
        stopper.stop(StopReason::Release);
        bounded(executor.kill_all()).await;
    });
    assert!(matches!(finished.outcome, Outcome::Released { .. }), "{finished:?}");
    assert_eq!((executor.snapshot().starts, executor.snapshot().failed_starts), (1, 0));
    finish(&executor, []).await;
}
