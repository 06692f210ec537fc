//! Many probes that wait for a slow provider at once, and what becomes of them when a worker dies.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{KEYS, memory_kb, workers};
use crate::support::app::Cluster;
use crate::support::stub::Stub;

const PROBES: usize = 200;
const MEMORY_MAX_KB: u64 = 300_000;
/// A hundred suspects run alone after the kill, and each imports the client anew: minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn two_hundred_probes_wait_at_once_in_little_memory_and_survive_the_death_of_a_worker() {
    let stub = Stub::start();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cluster = Cluster::with(&[
        KEYS[0],
        ("OPENAI_BASE_URL", &stub.url()),
        ("RUNLANE_WORKER_CONCURRENCY", "200"),
        ("RUNLANE_WARM_WORKERS", "2"),
        ("RUNLANE_WORK_DIR", work.path().to_str().unwrap()),
    ])
    .await;
    let definition = cluster.definition(PROBES).await;
    let run = cluster.run(&definition, &["openai/rater?gate=1"], json!({})).await;
    let seen = stub.until_in_flight(PROBES as u64).await;
    assert_eq!((seen.in_flight, seen.accepted), (200, 200), "each was sent once");

    let warm = workers(work.path());
    let memory: Vec<u64> = warm.iter().map(memory_kb).collect();
    let sum: u64 = memory.iter().sum();
    println!(
        "{PROBES} probes wait at once in {} worker processes: {} MB of memory (PSS {memory:?} kB)",
        warm.len(),
        sum / 1_000
    );
    assert!(!warm.is_empty() && sum < MEMORY_MAX_KB, "{memory:?} kB");

    kill(Pid::from_raw(warm[0].pid), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    stub.open().await;
    let finished = async {
        loop {
            let state = cluster.state(&run).await;
            if state["status"] == "COMPLETED" {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let state = tokio::time::timeout(PATIENCE, finished).await.expect("all of them finish");
    println!("all finished {:.1} s after a worker was killed", killed.elapsed().as_secs_f64());
    assert_eq!(state["progress"]["completed"], PROBES, "{state:#}");
    let (transcripts, jobs, lost): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from transcript), (select count(distinct job_id) from transcript),
                (select count(*) from attempt where outcome = 'lost')",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!((transcripts, jobs), (200, 200), "exactly one transcript each");
    assert!((1..=200).contains(&lost), "{lost} were in the worker that died");
    let (failures,): (i64,) =
        sqlx::query_as("select coalesce(sum(failures), 0)::bigint from job").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(failures, 0, "a death is no failure of the work");
    cluster.stop().await;
}
