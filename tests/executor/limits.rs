//! What a worker process may use, and where it lives among processes.

use runlane::domain::ErrorCode;
use runlane::executor::{Executor, Outcome, Settings};
use runlane::process::Limits;
use serde_json::{Value, json};

use super::support::*;

fn limited() -> Settings {
    let limits = Limits {
        memory_bytes: Some(512 << 20),
        cpu_seconds: Some(1),
        open_files: Some(64),
        file_bytes: Some(4 << 20),
        no_core: true,
    };
    Settings { limits, ..settings("serve") }
}

#[tokio::test]
async fn a_worker_gets_no_more_memory_files_or_disk_than_it_may_use() {
    let executor = Executor::new(limited());
    // 24 is EMFILE, 27 is EFBIG.
    for (what, told) in
        [("memory", "MemoryError None"), ("files", "OSError 24"), ("file", "OSError 27"), ("core", "(0, 0)")]
    {
        let act = json!({ "act": "use", "what": what });
        for job in [job(1, &act), alone(2, &act)] {
            assert_eq!(response(&run(&executor, job).await), told, "{what}");
        }
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_one_shot_that_burns_the_processor_is_killed_and_its_job_told_why() {
    let executor = Executor::new(limited());
    let finished = run(&executor, alone(1, &json!({ "act": "use", "what": "processor" }))).await;
    match &finished.outcome {
        Outcome::Lost { code: ErrorCode::WorkerCrash, message, alone: true, suspect: true, .. } => {
            assert!(message.contains("SIGXCPU"), "{message}");
        }
        _ => panic!("{finished:?}"),
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn limits_beyond_the_nodes_own_are_cut_to_them() {
    let limits = Limits { open_files: Some(u64::MAX), file_bytes: Some(u64::MAX), ..Limits::default() };
    let executor = Executor::new(Settings { limits, ..settings("serve") });
    assert!(completed(&run(&executor, job(1, &json!({ "act": "ok" }))).await));
    finish(&executor, []).await;
}

#[tokio::test]
async fn every_worker_leads_a_session_and_a_group_of_its_own() {
    let executor = Executor::new(settings("serve"));
    for job in [job(1, &json!({ "act": "place" })), alone(2, &json!({ "act": "place" }))] {
        let finished = run(&executor, job).await;
        let place: Value = serde_json::from_str(&response(&finished)).unwrap();
        let pid = u64::from(finished.worker_pid.unwrap());
        assert_eq!((place["pid"].as_u64(), place["session"].as_u64()), (Some(pid), Some(pid)));
        assert_eq!(place["group"].as_u64(), Some(pid));
    }
    finish(&executor, []).await;
}
