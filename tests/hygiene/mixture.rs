//! Poison of every kind among good jobs, in a node that is a process of its own: each costs its own job only, and leaves
//! nothing in the node and on the machine.

use std::path::Path;

use nix::sys::signal::Signal;
use runlane::process::kin::{self, Ended, Mark};
use serde_json::json;

use crate::queue::support::{Node, assert_books_balance, jobs, quick};
use crate::support::app::Cluster;

/// How a job poisons its worker, the code that it ends with, and what the message says.
const POISONS: [(&str, &str, &str); 9] = [
    ("kill", "worker_crash", "was killed by SIGKILL"),
    ("exit", "worker_crash", "exited with 137"),
    ("swarm", "worker_crash", "exited with 1 "),
    ("flood", "malformed_output", "wrote more than"),
    ("line", "malformed_output", "wrote more than"),
    ("close", "malformed_output", "closed its stdout"),
    ("half", "malformed_output", "in the middle of a message"),
    ("utf8", "malformed_output", "not UTF-8"),
    ("nan", "malformed_output", "no message"),
];
const GOOD: usize = 100;
/// Memory of a process in KiB, by its name in `/proc`.
fn memory_kib(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_poison_costs_its_own_job_only_and_leaves_nothing_behind() {
    let work = tempfile::tempdir().unwrap();
    let settings = quick(&[
        ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "0"),
        ("RUNLANE_WORKER_CONCURRENCY", "4"),
        // How a worker died is told only of one that dies within this time.
        ("RUNLANE_WORKER_TERM_GRACE_MS", "5000"),
        ("RUNLANE_ONE_SHOT_WORKERS", "1"),
        // What a line is gathered in doubles as it grows, and two lines without an end may meet: 32 MiB.
        ("RUNLANE_WORKER_LINE_MAX_BYTES", "8388608"),
        ("RUNLANE_WORK_DIR", work.path().to_str().unwrap()),
        ("RUNLANE_PYTHON", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hygiene/workers/poison.py")),
    ]);
    let cluster = Cluster::api_only(&settings).await;
    let node = Node::start(&cluster, "work", &[]);
    // Warmed up: pools, statements and threads are there.
    let many = cluster.definition(GOOD).await;
    let warm_up = cluster.run(&many, &["mock/echo"], json!({})).await;
    cluster.until_status(&warm_up, "COMPLETED").await;
    let before = memory_kib(node.pid(), "VmRSS:");

    let one = cluster.definition(1).await;
    let models: Vec<String> = POISONS.iter().map(|(how, _, _)| format!("mock/echo?poison={how}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let poisoned = cluster.run(&one, &models, json!({})).await;
    let deaf =
        cluster.run(&one, &["mock/echo?poison=deaf"], json!({ "params": { "timeoutSeconds": 2 } })).await;
    let good = cluster.run(&many, &["mock/rater"], json!({})).await;
    for run in [&poisoned, &deaf, &good] {
        cluster.until_status(run, "COMPLETED").await;
    }

    for job in jobs(&cluster.db, &good).await {
        assert_eq!((job.state.as_str(), job.failures, job.losses_alone), ("completed", 0, 0), "{job:?}");
    }
    for (job, (how, code, says)) in jobs(&cluster.db, &poisoned).await.iter().zip(POISONS) {
        assert_eq!((job.state.as_str(), job.error_code.as_deref()), ("failed", Some(code)), "{job:?}");
        assert_eq!((job.failures, job.losses_alone), (0, 3), "{how}: quarantined after three losses alone");
        let message: String = sqlx::query_scalar("select error_message from current_job where id = $1")
            .bind(job.id)
            .fetch_one(&cluster.db)
            .await
            .unwrap();
        assert!(message.starts_with("crash loop: 3 workers") && message.contains(says), "{how}: {message}");
    }
    let job = jobs(&cluster.db, &deaf).await.remove(0);
    assert_eq!(
        (job.error_code.as_deref(), job.failures, job.losses_alone),
        (Some("timeout"), 1, 0),
        "{job:?}"
    );
    assert_books_balance(&cluster.db).await;

    let (after, peak) = (memory_kib(node.pid(), "VmRSS:"), memory_kib(node.pid(), "VmHWM:"));
    println!("node: {before} KiB before, {after} KiB after, {peak} KiB at most");
    assert!(peak < before + 50 * 1024, "{before} KiB before, {after} KiB after, {peak} KiB at most");

    node.signal(Signal::SIGTERM);
    let (status, _) = tokio::task::spawn_blocking(move || node.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [Path::new(work.path()).join("lock")], "no directory is left");
    // Whoever had been started below the directory would be found, and killed, by this.
    let mark = Mark::prefix("RUNLANE_WORK_DIR", work.path().join("").as_os_str());
    assert_eq!(kin::end(&mark, None).unwrap(), Ended::default(), "no process is left");
    cluster.stop().await;
}
