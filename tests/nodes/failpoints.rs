//! Faults of the program itself, made on purpose.

use serde_json::json;
use uuid::Uuid;

use crate::queue::support::{Node, assert_books_balance, jobs, quick, until_sql};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_task_of_the_session_gives_up_the_lease_and_the_node_comes_back() {
    let cluster =
        Cluster::api_only(&quick(&[("RUNLANE_LEASE_MS", "3000"), ("RUNLANE_LEASE_RENEWAL_MS", "333")])).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=1500"], json!({})).await;
    let node = Node::start(&cluster, "work", &[("FAILPOINTS", "sweep=2*off->1*panic(on purpose)->off")]);
    let first: Uuid = sqlx::query_scalar("select id from node").fetch_one(&cluster.db).await.unwrap();
    node.until_logged("registers anew");
    until_sql(
        &cluster.db,
        "registered anew",
        &format!("select count(*) > 0 from node where id <> '{first}'"),
    )
    .await;
    cluster.until_status(&run, "COMPLETED").await;
    assert!(jobs(&cluster.db, &run).await.iter().all(|j| j.state == "completed" && j.failures == 0));
    assert_books_balance(&cluster.db).await;
    drop(node);
    cluster.stop().await;
}
