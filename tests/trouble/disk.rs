//! The database's disk is full: a real file system of a few megabytes, filled to the last byte.

use std::os::unix::fs::PermissionsExt;

use runlane::app::Roles;
use runlane::embedded;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::support::{assert_exact, number};
use crate::support::app::Cluster;
use crate::support::disk::{SmallDisk, give_to_owner_of};
use crate::support::postgres::{scratch, throw_away_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_runs_keeps_claims_and_is_got_over_without_a_restart() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: a full disk, for only root may mount a small file system");
        return;
    }
    let mode = std::fs::Permissions::from_mode(0o711);
    let home = tempfile::Builder::new().prefix("runlane").permissions(mode).tempdir_in(scratch()).unwrap();
    let server = embedded::Cluster::start(&throw_away_in(home.path().join("data"))).await.unwrap();
    let disk = SmallDisk::mount(home.path().join("small"));
    give_to_owner_of(server.data(), disk.path());
    let mut admin = PgConnection::connect(server.url()).await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("create tablespace small location '{}'", disk.path().display())))
        .await
        .unwrap();
    admin.execute("create database small tablespace small").await.unwrap();
    let url = server.url().replace("/runlane?", "/small?");
    // Its workers' jobs outlast the trouble; a lease that cannot be renewed for want of room is not what this is about.
    let numbers = [
        ("RUNLANE_LEASE_MS", "600000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "500"),
        ("RUNLANE_POLL_INTERVAL_MS", "200"),
    ];
    let cluster = Cluster::on(url, &numbers, Roles { serves: true, executes: true }).await;
    let large = cluster.definition(5_000).await;
    let small = cluster.definition(4).await;
    let run = cluster.run(&small, &["mock/echo?delayMs=4000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;

    disk.fill();
    let refused = cluster.start_run(&large, &["mock/echo"], json!({})).await;
    assert_eq!((refused.status, refused.code()), (503, "UNAVAILABLE"), "{}", refused.body);
    let message = refused.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("The database's disk is full, so nothing new can be stored"), "{message}");
    assert!(refused.headers.contains_key("retry-after"));
    for (table, rows) in [
        ("select count(*) from run", 1),
        ("select count(*) from current_job where scenario_id is not null", 4),
    ] {
        assert_eq!(number(&cluster.db, table).await, rows, "nothing half stored: {table}");
    }
    cluster.user("{ queueStatus { totalPending } }", json!({})).await.data();
    disk.make_room();

    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 4);
    assert_eq!(
        number(&cluster.db, "select max(claims)::bigint from current_job").await,
        1,
        "no claim was given up"
    );
    let again = cluster.run(&small, &["mock/echo"], json!({})).await;
    cluster.until_status(&again, "COMPLETED").await;
    assert_exact(&cluster.db).await;
    cluster.db.close().await;
    cluster.stop().await;
    server.stop().await.unwrap();
}
