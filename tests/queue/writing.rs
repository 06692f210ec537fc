//! How a node puts ends on record.

use serde_json::json;

use super::support::{Node, assert_books_balance, quick, until_sql};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn ends_do_not_wait_for_one_that_takes_long() {
    let cluster = Cluster::api_only(&quick(&[])).await;
    // One that gathers is few, and two are many.
    let _node = Node::start(
        &cluster,
        "work",
        &[
            ("RUNLANE_COMPLETION_BATCH_MAX", "4"),
            ("RUNLANE_ORCHESTRATOR_POOL_SIZE", "6"),
            ("RUNLANE_WORKER_CONCURRENCY", "8"),
        ],
    );
    let slow = cluster.run(&cluster.definition(1).await, &["mock/echo?delayMs=200"], json!({})).await;
    until_sql(&cluster.db, "it runs", "select exists (select from active_job)").await;
    let mut held = cluster.db.begin().await.unwrap();
    sqlx::query("select from lane for update").execute(&mut *held).await.unwrap();
    until_sql(
        &cluster.db,
        "its end waits",
        "select exists (select from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock' and query like '%end_attempts%')",
    )
    .await;
    for jobs in [1, 4] {
        let quick = cluster.run(&cluster.definition(jobs).await, &["mock/echo"], json!({})).await;
        cluster.until_status(&quick, "COMPLETED").await;
    }
    assert_eq!(cluster.state(&slow).await["status"], "RUNNING", "its end still waits");
    held.commit().await.unwrap();
    cluster.until_status(&slow, "COMPLETED").await;
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
