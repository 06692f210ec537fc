//! The embedded PostgreSQL: real programs, real processes, real kills.

mod crash;
mod owner;
mod places;
mod programs;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runlane::embedded::{Cluster, EmbeddedError, Settings};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tempfile::TempDir;

use crate::support::postgres::{scratch, settings_in, throw_away_in};

/// A temporary directory that the server's user can pass through when we are root.
fn home() -> TempDir {
    home_in(&scratch())
}

/// The same on disk, for real durability and for programs that are run from there.
fn home_on_disk() -> TempDir {
    home_in(&std::env::temp_dir())
}

fn home_in(parent: &Path) -> TempDir {
    let mode = std::fs::Permissions::from_mode(0o711);
    tempfile::Builder::new().prefix("runlane").permissions(mode).tempdir_in(parent).unwrap()
}

fn settings(home: &TempDir) -> Settings {
    throw_away_in(home.path().join("data"))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the process executes anything: one that waits for its new parent to reap it does not.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

/// The directory that the URL names.
fn socket_dir(url: &str) -> &Path {
    Path::new(url.split("host=").nth(1).and_then(|rest| rest.split('&').next()).expect("the URL has a host"))
}

async fn write_row(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)").await.unwrap();
    connection.close().await.unwrap();
}

async fn read_row(url: &str) -> i32 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut connection).await.unwrap()
}

async fn show(connection: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(connection).await.unwrap()
}

async fn refusal(settings: &Settings) -> EmbeddedError {
    Cluster::start(settings).await.expect_err("the start must be refused")
}

#[tokio::test]
async fn a_fresh_cluster_is_durable_and_without_tcp() {
    let home = home_on_disk();
    let cluster = Cluster::start(&settings_in(home.path().join("data"))).await.unwrap();
    let mut connection = PgConnection::connect(cluster.url()).await.unwrap();
    for (name, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "2GB"),
    ] {
        assert_eq!(show(&mut connection, name).await, value, "{name}");
    }
    let version = show(&mut connection, "server_version").await;
    assert_eq!(version.split(' ').next(), Some(&*cluster.version().to_string()));
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(database, "runlane");
    drop(connection);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_what_was_written() {
    let home = home();
    let cluster = Cluster::start(&settings(&home)).await.unwrap();
    write_row(cluster.url()).await;
    cluster.stop().await.unwrap();
    let cluster = Cluster::start(&settings(&home)).await.unwrap();
    assert_eq!(read_row(cluster.url()).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn stop_leaves_no_process_and_no_socket() {
    let home = home();
    let cluster = Cluster::start(&settings(&home)).await.unwrap();
    let (pid, url) = (cluster.pid(), cluster.url().to_owned());
    let mode = std::fs::metadata(socket_dir(&url)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only the server's user may enter");
    assert!(runs(pid) && socket_dir(&url).join(".s.PGSQL.5432").exists());
    // A client that stays connected does not hold the server up.
    let _client = PgConnection::connect(&url).await.unwrap();
    cluster.stop().await.unwrap();
    assert!(!runs(pid));
    assert!(!socket_dir(&url).exists());
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_of_the_first() {
    let home = home();
    let cluster = Cluster::start(&settings(&home)).await.unwrap();
    let message = refusal(&settings(&home)).await.to_string();
    for part in [&*format!("process {}", std::process::id()), "DATABASE_URL", "RUNLANE_DATA_DIR"] {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
    cluster.stop().await.unwrap();
    Cluster::start(&settings(&home)).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_to_start_is_quoted() {
    let home = home();
    let mut settings = settings(&home);
    settings.options.push(("wal_level".into(), "nonsense".into()));
    let message = refusal(&settings).await.to_string();
    assert!(message.contains("nonsense") && message.contains("postgres failed"), "{message}");
}

#[tokio::test]
async fn an_unexpected_end_of_the_server_is_noticed() {
    let home = home();
    let mut cluster = Cluster::start(&settings(&home)).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(cluster.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let status =
        tokio::time::timeout(std::time::Duration::from_secs(20), cluster.exited()).await.unwrap().unwrap();
    assert!(!status.success());
    cluster.stop().await.unwrap();
    Cluster::start(&settings(&home)).await.unwrap().stop().await.unwrap();
}
