//! Processes that die, babble or block, with neighbours and without.

use std::time::Duration;

use runlane::domain::ErrorCode;
use runlane::executor::{Executor, Finished, Outcome, Settings, Stop, StopReason};
use serde_json::json;

use super::support::*;

fn lost(finished: &Finished) -> (ErrorCode, &str, bool, bool) {
    match &finished.outcome {
        Outcome::Lost { code, message, alone, suspect, .. } => (*code, message, *alone, *suspect),
        _ => panic!("{finished:?}"),
    }
}

/// How a process dies, the code that the node gives it, and what its message says.
const DEATHS: [(&str, ErrorCode, &str); 11] = [
    ("exit", ErrorCode::WorkerCrash, "exited with 3"),
    ("segv", ErrorCode::WorkerCrash, "SIGSEGV"),
    ("kill", ErrorCode::WorkerCrash, "SIGKILL"),
    ("exit0", ErrorCode::MalformedOutput, "exited with 0 but gave no answer"),
    ("half", ErrorCode::MalformedOutput, "32 bytes were written"),
    ("half3", ErrorCode::WorkerCrash, "exited with 3, in the middle"),
    ("garbage", ErrorCode::MalformedOutput, "Traceback"),
    ("utf8", ErrorCode::MalformedOutput, "not UTF-8"),
    ("version", ErrorCode::MalformedOutput, "version 2"),
    ("type", ErrorCode::MalformedOutput, "song"),
    ("flood", ErrorCode::MalformedOutput, "more than"),
];

fn act(death: &str, n: usize) -> serde_json::Value {
    let (then, code) = match death {
        "exit0" => ("exit", 0),
        "half3" => ("half", 3),
        "half" => ("half", 0),
        other => (other, 3),
    };
    json!({ "act": "barrier", "n": n, "then": then, "code": code })
}

#[tokio::test]
async fn a_death_loses_every_job_of_the_process_as_a_suspect_and_blames_none() {
    let executor = Executor::new(settings("serve"));
    for (death, expected, says) in DEATHS {
        let all = run_all(&executor, (0..3).map(|n| job(n, &act(death, 3))).collect()).await;
        for finished in &all {
            let (code, message, alone, suspect) = lost(finished);
            assert_eq!((code, alone, suspect), (expected, false, true), "{death}: {message}");
            assert!(message.contains(says), "{death}: {message}");
            assert_gone(finished.worker_pid.unwrap());
        }
    }
    // Each death cost one process, and the pool goes on.
    assert!(completed(&run(&executor, job(9, &json!({ "act": "ok" }))).await));
    let snapshot = executor.snapshot();
    assert_eq!((snapshot.starts, snapshot.failed_starts), (DEATHS.len() as u64 + 1, 0));
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_death_with_one_job_in_flight_is_told_as_alone() {
    let executor = Executor::new(settings("serve"));
    for (death, expected, says) in DEATHS {
        for job in [job(1, &act(death, 1)), alone(2, &act(death, 1))] {
            let of = if job.alone { "one-shot" } else { "warm" };
            let finished = run(&executor, job).await;
            let (code, message, alone, suspect) = lost(&finished);
            assert_eq!((code, alone, suspect), (expected, true, true), "{of} {death}: {message}");
            assert!(message.contains(says), "{of} {death}: {message}");
            assert_gone(finished.worker_pid.unwrap());
        }
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_crash_takes_what_it_wrote_to_stderr_along() {
    let executor = Executor::new(settings("serve"));
    for job in [job(1, &json!({ "act": "no such act" })), alone(2, &json!({ "act": "no such act" }))] {
        let finished = run(&executor, job).await;
        assert_eq!(lost(&finished).0, ErrorCode::WorkerCrash);
        assert!(finished.stderr_tail.contains("ValueError: no such act"), "{}", finished.stderr_tail);
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn an_endless_line_does_not_fill_memory() {
    let limit = 1 << 20;
    let executor = Executor::new(Settings { line_max_bytes: limit, ..impatient("serve") });
    for job in [job(1, &act("flood", 1)), alone(2, &act("flood", 1))] {
        let before = peak_kib();
        let finished = run(&executor, job).await;
        assert_eq!(lost(&finished).0, ErrorCode::MalformedOutput);
        // A flood runs at GB/s; other tests of this binary share the figure.
        assert!(peak_kib() < before + 200 * 1024, "{} → {} KiB", before, peak_kib());
    }
    finish(&executor, []).await;
}

/// The most memory that this process ever held.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_worker_that_closes_its_stdout_and_runs_on_is_ended() {
    let executor = Executor::new(impatient("serve"));
    for job in [job(1, &act("close", 1)), alone(2, &act("close", 1))] {
        let finished = run(&executor, job).await;
        let (code, message, alone, suspect) = lost(&finished);
        assert_eq!((code, alone, suspect), (ErrorCode::MalformedOutput, true, true));
        assert!(message.contains("closed its stdout"), "{message}");
        assert_gone(finished.worker_pid.unwrap());
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_worker_that_takes_long_to_die_is_told_by_its_own_end() {
    // It is waited for so long before it is told to end, and again then; it must not be killed meanwhile.
    let executor = Executor::new(Settings { term_grace: Duration::from_secs(5), ..settings("serve") });
    for job in [job(1, &act("die slowly", 1)), alone(2, &act("die slowly", 1))] {
        let of = if job.alone { "one-shot" } else { "warm" };
        let finished = run(&executor, job).await;
        let (code, message, ..) = lost(&finished);
        assert_eq!(code, ErrorCode::WorkerCrash, "{of}: {message}");
        assert!(message.contains("was killed by SIGSEGV"), "{of}: {message}");
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn grandchildren_die_with_their_process() {
    let executor = Executor::new(impatient("serve"));
    for (then, alone) in [
        ("exit", false),
        ("exit", true),
        ("kill", false),
        ("kill", true),
        ("freeze", false),
        ("freeze", true),
    ] {
        let fifo = Fifo::new();
        let mut job = job(1, &json!({ "act": "fork", "fifo": fifo.path, "then": then }));
        job.alone = alone;
        let (stopper, stop) = Stop::pair();
        let (finished, grandchild) = tokio::join!(bounded(executor.run(job, stop)), async {
            let mut file = fifo.open().await;
            let grandchild = told(&mut file).await;
            if then == "freeze" {
                stopper.stop(StopReason::Cancel);
            }
            // The grandchild ignores SIGTERM and holds the FIFO until it is dead.
            ended(file).await;
            grandchild
        });
        assert!(matches!(finished.outcome, Outcome::Lost { .. } | Outcome::Cancelled { .. }), "{finished:?}");
        assert_ne!(finished.worker_pid, Some(grandchild));
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_one_shot_result_counts_although_a_grandchild_escaped_with_the_pipes_and_it_is_ended() {
    let executor = Executor::new(Settings { term_grace: SHORT, ..settings("serve") });
    let fifo = Fifo::new();
    let act = json!({ "act": "fork", "fifo": fifo.path, "then": "ok", "escape": true });
    let one_shot = alone(1, &act);
    let (finished, pid) =
        tokio::join!(run(&executor, one_shot), async { told(&mut fifo.open().await).await });
    // It left group and session behind, and was found all the same.
    assert!(!crate::queue::support::is_running(pid), "process {pid} is left");
    assert_eq!(response(&finished), "ok");
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_worker_that_never_reads_blocks_neither_the_caller_nor_others() {
    // Jobs far beyond the pipe and the queue: the first fill both, the rest wait for room.
    let executor = Executor::new(Settings { queue_max_bytes: 100_000, ..impatient("unreading") });
    let filling = "x".repeat(60_000);
    let mut jobs: Vec<_> = (0..8).map(|n| job(n, &json!({ "act": "ok", "pad": filling }))).collect();
    jobs.iter_mut().for_each(|job| job.deadline = SHORT);
    let one_shot = run(&executor, alone(99, &json!({ "act": "ok" })));
    let (all, other) = tokio::join!(run_all(&executor, jobs), one_shot);
    assert!(completed(&other));
    let mut unseen = 0;
    for finished in &all {
        match &finished.outcome {
            Outcome::Lost { message, alone: false, suspect, .. } => {
                assert!(message.contains("did not answer for an overdue job"), "{message}");
                unseen += usize::from(!suspect);
            }
            // The last of them may have had a process to itself.
            Outcome::Failed(error) if error.code == ErrorCode::Timeout => {}
            _ => panic!("{finished:?}"),
        }
    }
    assert!(unseen > 0 && unseen < all.len(), "{unseen} of {} jobs never reached the pipe", all.len());
    finish(&executor, all.iter().map(|f| f.worker_pid)).await;
}

#[tokio::test]
async fn two_thousand_jobs_with_crashes_get_exactly_one_outcome_each() {
    let executor = Executor::new(Settings { warm_workers: 2, ..settings("serve") });
    let jobs: Vec<_> = (0..2_000)
        .map(|n| {
            let crash = ["exit", "segv", "kill"][n as usize % 3];
            job(n, &if n % 20 == 7 { json!({ "act": "die", "then": crash }) } else { json!({ "act": "ok" }) })
        })
        .collect();
    let mut outcomes = vec![0; jobs.len()];
    let mut waiting = jobs;
    let mut first = true;
    let mut crashed = 0;
    while !waiting.is_empty() {
        use futures_util::StreamExt;
        let runs = futures_util::stream::iter(std::mem::take(&mut waiting))
            .map(|job| {
                let executor = &executor;
                async move { (job.clone(), run(executor, job).await) }
            })
            .buffer_unordered(if first { 8 } else { 4 })
            .collect::<Vec<_>>();
        for (job, finished) in runs.await {
            assert_eq!(finished.claim, job.claim);
            let killer = job.claim.job_id % 20 == 7;
            match &finished.outcome {
                Outcome::Completed(_) => {
                    assert!(!killer);
                    outcomes[job.claim.job_id as usize] += 1;
                }
                Outcome::Lost { alone: true, .. } if killer => {
                    crashed += 1;
                    outcomes[job.claim.job_id as usize] += 1;
                }
                // Blamed for nothing: again, alone if suspect.
                Outcome::Lost { alone, suspect, .. } => {
                    assert!(killer || !(*alone && job.alone), "{finished:?}");
                    let mut job = job;
                    job.alone = *suspect;
                    waiting.push(job);
                }
                _ => panic!("{finished:?}"),
            }
        }
        first = false;
    }
    assert!(outcomes.iter().all(|&n| n == 1));
    assert_eq!(crashed, 100);
    finish(&executor, []).await;
}
