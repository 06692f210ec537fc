//! Faults of the program itself, made on purpose.

use serde_json::json;

use super::support::{Node, assert_books_balance, attempts, jobs, quick};
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
