//! Many probes that wait for a slow provider at once, and what becomes of them when a worker dies.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{KEYS, Process, memory_kb, workers};
use crate::support::app::Cluster;
use crate::support::stub::Stub;

const PROBES: usize = 200;
const MEMORY_MAX_KB: u64 = 300_000;
/// The suspects run alone after the kill, and each imports the client anew: minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn two_hundred_probes_wait_at_once_in_little_memory_and_survive_the_death_of_a_worker() {
    let stub = Stub::start();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cluster = Cluster::with(&[
        KEYS[0],
        ("OPENAI_BASE_URL", &stub.url()),
        ("RUNLANE_WORKER_CONCURRENCY", "203"),
        ("RUNLANE_WARM_WORKERS", "3"),
        ("RUNLANE_WORK_DIR", work.path().to_str().unwrap()),
    ])
    .await;
    let definition = cluster.definition(PROBES).await;
    // Three busy jobs start the three workers, which the others are then spread over.
    let few = cluster.definition(3).await;
    cluster.run(&few, &["openai/rater?gate=1"], json!({})).await;
    stub.until_in_flight(3).await;
    let warm = loop {
        let warm = workers(work.path());
        if warm.len() == 3 && warm.iter().all(Process::is_ready) {
            break warm;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let run = cluster.run(&definition, &["openai/rater?gate=1"], json!({})).await;
    let seen = stub.until_in_flight(PROBES as u64 + 3).await;
    assert_eq!((seen.in_flight, seen.accepted), (203, 203), "each was sent once");

    let memory: Vec<u64> = warm.iter().map(memory_kb).collect();
    let sum: u64 = memory.iter().sum();
    println!(
        "{PROBES} probes wait at once in {} worker processes: {} MB of memory (PSS {memory:?} kB)",
        warm.len(),
        sum / 1_000
    );
    assert!(sum < MEMORY_MAX_KB, "{memory:?} kB");

    let busy = warm.iter().filter(|worker| worker.connections() > 0);
    let victim = busy.min_by_key(|worker| worker.connections()).expect("somebody calls");
    let in_victim = victim.connections();
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).unwrap();
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
    let took = killed.elapsed().as_secs_f64();
    println!("all finished {took:.1} s after a worker with {in_victim} calls was killed");
    assert_eq!(state["progress"]["completed"], PROBES, "{state:#}");
    let (transcripts, jobs, lost): (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(distinct t.job_id), (select count(*) from attempt where outcome = 'lost')
           from transcript t join lane l on l.id = t.lane_id where l.run_id = $1::uuid",
    )
    .bind(&run)
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!((transcripts, jobs), (200, 200), "exactly one transcript each");
    assert_eq!(usize::try_from(lost), Ok(in_victim), "those in the worker that died, and no others");
    let (failures,): (i64,) = sqlx::query_as("select coalesce(sum(failures), 0)::bigint from current_job")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    assert_eq!(failures, 0, "a death is no failure of the work");
    cluster.stop().await;
}
