//! Faults of the program itself, made on purpose.

use serde_json::json;

use super::support::{Node, assert_books_balance, attempts, jobs, quick};
use crate::control::support::{ENDLESS, counts, did};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_task_of_an_attempt_loses_no_job() {
    let cluster = Cluster::api_only(&quick(&[])).await;
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let node = Node::start(&cluster, "work", &[("FAILPOINTS", "attempt=2*panic(on purpose)->off")]);
    cluster.until_status(&run, "COMPLETED").await;
    let jobs = jobs(&cluster.db, &run).await;
    assert!(jobs.iter().all(|j| j.state == "completed" && j.failures == 0), "{jobs:#?}");
    assert_eq!(jobs.iter().map(|j| j.losses).sum::<i16>(), 2, "two attempts panicked");
    let attempts = attempts(&cluster.db).await;
    assert_eq!(attempts.iter().filter(|a| a.outcome == "lost").count(), 2);
    node.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, log) = node.wait();
    assert_eq!(attempts.len(), 8, "{log:#?}");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_between_a_claim_and_the_start_of_its_jobs_stops_them() {
    // No renewal finds it later: only the notice that came while the claim's answer was on its way.
    let cluster = Cluster::api_only(&quick(&[
        ("RUNLANE_LEASE_MS", "600000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "200000"),
        ("RUNLANE_WORKER_CANCEL_GRACE_MS", "100"),
    ]))
    .await;
    let definition = cluster.definition(3).await;
    let node = Node::start(&cluster, "work", &[("FAILPOINTS", "claim.after=1*sleep(3000)->off")]);
    node.until_logged("node registered");
    let run = cluster.run(&definition, &[ENDLESS], json!({})).await;
    cluster.until(&run, "claimed", |s| counts(s)[1] == 3).await;
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
    assert!(!node.logged("job claimed"), "the cancel came after the start: it shows nothing");
    let stopped = cluster.until(&run, "stopped", |s| counts(s)[1] == 0).await;
    assert_eq!(counts(&stopped), [0, 0, 0, 0, 3]);
    node.signal(nix::sys::signal::Signal::SIGTERM);
    node.wait();
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
