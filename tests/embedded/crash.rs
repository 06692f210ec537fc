//! The owner or the server dies without a word.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::embedded::Cluster;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::process::Command;

use super::owner::Owner;
use super::{home, read_row, runs, settings, socket_dir, write_row};

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Waits for the end of a process that is nobody's child here, so that nothing tells.
async fn gone(pid: u32) {
    let look = async {
        while runs(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("the process ends");
}

#[tokio::test]
async fn the_server_ends_with_its_killed_owner() {
    let home = home();
    let owner = Owner::start(&settings(&home).data_dir).await;
    let (server, url) = (owner.server, owner.url.clone());
    assert!(runs(server));
    owner.kill().await;
    gone(server).await;
    assert!(!socket_dir(&url).join(".s.PGSQL.5432").exists(), "it shut down in order");
}

#[tokio::test]
async fn after_the_owner_is_killed_the_next_start_works_at_once_and_keeps_what_was_committed() {
    let home = home();
    let settings = settings(&home);
    let owner = Owner::start(&settings.data_dir).await;
    let server = owner.server;
    write_row(&owner.url).await;
    owner.kill().await;
    let cluster = Cluster::start(&settings).await.unwrap();
    assert!(!runs(server), "two servers on one cluster");
    assert_eq!(read_row(cluster.url()).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_waits_for_an_orphan_that_takes_its_time() {
    let home = home();
    let mut settings = settings(&home);
    let owner = Owner::start(&settings.data_dir).await;
    let server = owner.server;
    write_row(&owner.url).await;
    // A server cannot end before its sessions. (It cannot itself be stopped: Linux wakes whom a dead parent leaves.)
    let mut client = PgConnection::connect(&owner.url).await.unwrap();
    let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut client).await.unwrap();
    let session = session.cast_unsigned();
    signal(session, Signal::SIGSTOP);
    owner.kill().await;

    settings.start_timeout = Duration::from_millis(300);
    let message = Cluster::start(&settings).await.expect_err("the orphan is still there").to_string();
    assert!(message.contains(&server.to_string()) && message.contains("START_TIMEOUT"), "{message}");

    settings.start_timeout = Duration::from_secs(60);
    let start = tokio::spawn(async move { Cluster::start(&settings).await });
    signal(session, Signal::SIGCONT);
    let cluster = start.await.unwrap().unwrap();
    assert!(!runs(server));
    assert_eq!(read_row(cluster.url()).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_crashed_server_recovers_though_another_program_has_its_number_now() {
    let home = home();
    let settings = settings(&home);
    let owner = Owner::start(&settings.data_dir).await;
    let server = owner.server;
    write_row(&owner.url).await;
    signal(server, Signal::SIGKILL);
    owner.kill().await;
    gone(server).await;
    let file = settings.data_dir.join("postgres/postmaster.pid");
    let text = std::fs::read_to_string(&file).expect("a crashed server leaves its file");
    let (_, rest) = text.split_once('\n').expect("several lines");
    // The server takes only processes of its own user for its predecessor.
    let user = std::fs::metadata(settings.data_dir.join("postgres")).unwrap();
    let other = Command::new("cat")
        .uid(user.uid())
        .gid(user.gid())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cat runs");
    let number = other.id().expect("cat waits for its input");
    std::fs::write(&file, format!("{number}\n{rest}")).unwrap();
    let cluster = Cluster::start(&settings).await.unwrap();
    assert_eq!(read_row(cluster.url()).await, 42);
    cluster.stop().await.unwrap();
}
