//! A database that ends, and one that comes back from a backup.

use std::path::Path;

use runlane::app::Roles;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::operator::Operator;
use super::server::Server;
use super::trouble::Trouble;
use crate::support::app::Cluster;
use crate::support::disk::{SmallDisk, give_to_owner_of};

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
    let claims: i64 =
        sqlx::query_scalar("select sum(claims)::bigint from current_job where scenario_id is not null")
            .fetch_one(&cluster.db)
            .await
            .unwrap();
    assert_eq!(claims, 4, "no job was run twice");
    operator.finds_all_well().await;
    cluster.db.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_and_restore() {
    let (mut server, trouble) = (Server::start().await, Trouble::begin(&["lasts"]));
    for program in ["pg_dump", "pg_restore", "psql", "pg_basebackup"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain([server.programs.clone()])
            .any(|dir| dir.join(program).exists());
        if !found {
            eprintln!("NOT TESTED: backup and restore, for {program} is on no PATH");
            return;
        }
    }
    let numbers = [
        trouble.python(),
        ("RUNLANE_WORKER_CONCURRENCY", "2"),
        ("RUNLANE_POLL_INTERVAL_MS", "200"),
        // The jobs of nodes that are gone are given back when their leases have run out.
        ("RUNLANE_LEASE_MS", "3000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "300"),
    ];
    let first = Cluster::on(server.url(), &numbers, BOTH).await;
    let address = first.address;
    let costly = json!({ "name": "costly" });
    let run = first.run(&first.definition(3).await, &["mock/echo?trouble=slow"], costly).await;
    first.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    let other = first.run(&first.definition(2).await, &["mock/echo"], json!({})).await;

    let (url, admin_url, backups) = (server.url(), server.admin_url(), server.room("backups"));
    let variables = [
        ("ADMIN_URL", admin_url.as_str()),
        ("BACKUPS", backups.to_str().unwrap()),
        ("PGDATA", server.data()),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let programs = [server.programs.clone()];
    let mut operator = Operator::with("backup-and-restore.md", &url, address, &programs, &variables).await;
    let mut nodes = Some(first);
    operator
        .follow(async |act| match act {
            "time goes by" => {
                trouble.end("lasts");
                nodes.as_ref().unwrap().until_status(&other, "COMPLETED").await;
            }
            "stop every node" => {
                let nodes = nodes.take().unwrap();
                nodes.db.close().await;
                nodes.stop().await;
            }
            "start the nodes" => {
                let listen = address.to_string();
                let again = [&numbers[..], &[("RUNLANE_LISTEN", listen.as_str())]].concat();
                nodes = Some(Cluster::on(url.clone(), &again, BOTH).await);
            }
            "the server is lost" => {
                server.crash();
                server.is_followed_by(backups.join("base"));
            }
            act => panic!("{act}?"),
        })
        .await;
    operator.finds_all_well().await;
    let nodes = nodes.unwrap();
    assert_eq!(nodes.state(&run).await["status"], "CANCELLED");
    assert_eq!(nodes.state(&other).await["status"], "COMPLETED", "it has run again: that was resumed");
    nodes.db.close().await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_full() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: a full disk, for only root may mount a small file system");
        return;
    }
    let (server, trouble) = (Server::start().await, Trouble::begin(&["lasts"]));
    let disk = SmallDisk::mount(server.room("small").join("disk"));
    give_to_owner_of(Path::new(server.data()), disk.path());
    let mut admin = PgConnection::connect(&server.admin_url()).await.unwrap();
    let place = format!("create tablespace small location '{}'", disk.path().display());
    admin.execute(AssertSqlSafe(place)).await.unwrap();
    admin.execute("create database small tablespace small").await.unwrap();
    admin.close().await.unwrap();
    let url = server.url().replace("/runlane?", "/small?");
    // A lease that cannot be renewed for want of room is not what this is about.
    let numbers = [trouble.python(), ("RUNLANE_LEASE_MS", "600000"), ("RUNLANE_POLL_INTERVAL_MS", "200")];
    let cluster = Cluster::on(url.clone(), &numbers, BOTH).await;
    let definition = cluster.definition(500).await;
    let run = cluster.run(&cluster.definition(4).await, &["mock/echo?trouble=slow"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    let programs = [server.programs.clone()];
    let at = [("DISK", disk.path().to_str().unwrap())];
    let mut operator = Operator::with("disk-full.md", &url, cluster.address, &programs, &at).await;
    operator.is_told("DEFINITION", &definition).await;
    disk.fill();
    trouble.end("lasts");
    operator
        .follow(async |act| match act {
            "make room" => disk.make_room(),
            other => panic!("{other}?"),
        })
        .await;
    assert_eq!(cluster.until_status(&run, "COMPLETED").await["progress"]["completed"], 4);
    operator.finds_all_well().await;
    cluster.db.close().await;
    cluster.stop().await;
}
