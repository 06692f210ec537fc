//! A database that ends, and one that comes back from a backup.

use runlane::app::Roles;
use serde_json::json;

use super::operator::Operator;
use super::server::Server;
use super::trouble::Trouble;
use crate::support::app::Cluster;

const BOTH: Roles = Roles { serves: true, executes: true };

#[tokio::test(flavor = "multi_thread")]
async fn database_down() {
    let (server, trouble) = (Server::start().await, Trouble::begin(&["lasts"]));
    let numbers =
        [trouble.python(), ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "300"), ("RUNLANE_POLL_INTERVAL_MS", "200")];
    let cluster = Cluster::on(server.url(), &numbers, BOTH).await;
    let run = cluster.run(&cluster.definition(4).await, &["mock/echo?trouble=slow"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    let pgdata = ("PGDATA", server.data());
    let programs = [server.programs.clone()];
    let mut operator =
        Operator::with("database-down.md", &server.url(), cluster.address, &programs, &[pgdata]).await;
    server.crash();
    // The jobs end while nobody can write it down.
    trouble.end("lasts");
    operator.follow(async |act| panic!("{act}?")).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 4);
    let claims: i64 = sqlx::query_scalar("select sum(claims)::bigint from job where scenario_id is not null")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    assert_eq!(claims, 4, "no job was run twice");
    operator.finds_all_well().await;
    cluster.db.close().await;
    cluster.stop().await;
}
