//! Directories that are deep, oddly named or closed, and users that may not enter them.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use runlane::embedded::Cluster;

use super::owner::{Owner, command, this_binary};
use super::{home, home_on_disk, is_root, read_row, refusal, settings, socket_dir, write_row};
use crate::support::postgres::throw_away_in;

/// Some user that is not root and owns nothing here.
const STRANGER: u32 = 65_534;

#[tokio::test]
async fn a_deep_data_directory_has_its_socket_elsewhere() {
    let home = home();
    let mut settings = settings(&home);
    settings.data_dir.push("d".repeat(120));
    let cluster = Cluster::start(&settings).await.unwrap();
    let socket = socket_dir(cluster.url()).to_owned();
    assert!(!socket.starts_with(&settings.data_dir));
    write_row(cluster.url()).await;
    cluster.stop().await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_data_directory_may_have_any_name() {
    let home = home();
    let mut settings = settings(&home);
    settings.data_dir.push("a b, 'c' & “d”?e=%20");
    let cluster = Cluster::start(&settings).await.unwrap();
    write_row(cluster.url()).await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn as_root_the_server_is_another_users() {
    if !is_root() {
        return;
    }
    let home = home();
    let cluster = Cluster::start(&settings(&home)).await.unwrap();
    assert_eq!(cluster.data(), home.path().canonicalize().unwrap().join("data/postgres"));
    assert_ne!(std::fs::metadata(cluster.data()).unwrap().uid(), 0);
    assert_ne!(std::fs::metadata(format!("/proc/{}", cluster.pid())).unwrap().uid(), 0);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn as_root_below_a_closed_directory_the_cluster_is_elsewhere_and_found_again() {
    if !is_root() {
        return;
    }
    let home = home();
    let closed = home.path().join("closed");
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let mut settings = throw_away_in(closed.join("project/data"));
    settings.fallback_dirs = vec![closed.join("unreachable-too"), home.path().join("open")];
    let cluster = Cluster::start(&settings).await.unwrap();
    assert!(cluster.data().starts_with(home.path().join("open").canonicalize().unwrap()));
    write_row(cluster.url()).await;
    cluster.stop().await.unwrap();

    // The project moves: its pointer still names the cluster, which is the old place's only by its name.
    let moved = closed.join("moved");
    std::fs::rename(closed.join("project"), &moved).unwrap();
    settings.data_dir = moved.join("data");
    let cluster = Cluster::start(&settings).await.unwrap();
    assert_eq!(read_row(cluster.url()).await, 42);
    let other = throw_away_in(closed.join("moved/data"));
    assert!(refusal(&other).await.to_string().contains("in use by"), "one cluster, one owner");
    cluster.stop().await.unwrap();

    std::fs::remove_dir_all(home.path().join("open")).unwrap();
    let message = refusal(&settings).await.to_string();
    assert!(message.contains("postgres.location") && message.contains("gone"), "{message}");
}

#[tokio::test]
async fn a_directory_that_a_stranger_prepared_is_not_used() {
    if !is_root() {
        return;
    }
    let home = home();
    let closed = home.path().join("closed");
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let prepared = home.path().join("prepared");
    std::fs::create_dir(&prepared).unwrap();
    std::os::unix::fs::chown(&prepared, Some(STRANGER), Some(STRANGER)).unwrap();
    let mut settings = throw_away_in(closed.join("data"));
    settings.fallback_dirs = vec![prepared.clone()];
    let message = refusal(&settings).await.to_string();
    assert!(message.contains("prepared is not a directory of root's own"), "{message}");
    assert_eq!(std::fs::read_dir(&prepared).unwrap().count(), 0);
}

/// An owner in `data_dir` that is not root; the stranger may not reach where this binary is, so it gets a copy.
async fn stranger(home: &Path, data_dir: &Path) -> Owner {
    let copy = home.join("tests");
    if !copy.exists() {
        // By a process of its own: another test may fork here while the copy is open for writing, and no program can be
        // started that any process has open so.
        let copied = tokio::process::Command::new("cp").arg(this_binary()).arg(&copy).status().await.unwrap();
        assert!(copied.success());
    }
    let mut command = command(&copy, data_dir);
    command.uid(STRANGER).gid(STRANGER);
    Owner::start_by(command).await
}

#[tokio::test]
async fn without_root_the_server_is_its_owners_and_root_leaves_it_so() {
    if !is_root() {
        return;
    }
    let home = home_on_disk();
    let dir = home.path().join("theirs");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(STRANGER), Some(STRANGER)).unwrap();
    let data_dir = dir.join("data");
    let owner = stranger(home.path(), &data_dir).await;
    assert_eq!(std::fs::metadata(format!("/proc/{}", owner.server)).unwrap().uid(), STRANGER);
    write_row(&owner.url).await;
    owner.end().await;

    let owner = stranger(home.path(), &data_dir).await;
    owner.kill().await;
    if std::env::var_os("RUNLANE_POSTGRES_SOURCE").is_none() {
        // The owner closed its directory to all others, root's stand-in included; its own user gets in.
        let cluster = Cluster::start(&throw_away_in(data_dir)).await.unwrap();
        assert_eq!(std::fs::metadata(format!("/proc/{}", cluster.pid())).unwrap().uid(), STRANGER);
        assert_eq!(read_row(cluster.url()).await, 42);
        cluster.stop().await.unwrap();
    }
}
