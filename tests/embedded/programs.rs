//! Which programs are used, and what is said when there are none.

use runlane::embedded::{Cluster, Source};

use super::owner::{command, launch, this_binary};
use super::{home, home_on_disk, read_row, refusal, settings, write_row};

#[tokio::test]
async fn the_package_serves_when_the_machine_has_no_programs() {
    let home = home_on_disk();
    let mut settings = settings(&home);
    settings.source = Source::Package;
    let cluster = Cluster::start(&settings).await.unwrap();
    assert_eq!(cluster.version().major, 18);
    write_row(cluster.url()).await;
    cluster.stop().await.unwrap();

    // From now on the cluster's version decides, whatever else there is; and nothing is installed again.
    settings.source = Source::Auto;
    settings.bin_dir = None;
    settings.python = "/nonexistent/python".into();
    let cluster = Cluster::start(&settings).await.unwrap();
    assert_eq!(cluster.version().major, 18);
    assert_eq!(read_row(cluster.url()).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_a_version_without_programs_is_refused_and_left_alone() {
    let home = home();
    let mut settings = settings(&home);
    let data = settings.data_dir.join("postgres");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    for bin_dir in [settings.bin_dir.clone(), None] {
        settings.bin_dir = bin_dir;
        let message = refusal(&settings).await.to_string();
        for part in ["made by PostgreSQL 9", "found: ", "RUNLANE_POSTGRES_BIN_DIR", "RUNLANE_DATA_DIR"] {
            assert!(message.contains(part), "{part} is missing: {message}");
        }
    }
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
    std::fs::write(data.join("PG_VERSION"), "many\n").unwrap();
    let message = refusal(&settings).await.to_string();
    assert!(message.contains("\"many\", no version"), "{message}");
}

#[tokio::test]
async fn a_configured_directory_without_programs_is_named() {
    let home = home();
    let mut settings = settings(&home);
    settings.bin_dir = Some("/nonexistent/bin".into());
    let message = refusal(&settings).await.to_string();
    assert!(message.starts_with("RUNLANE_POSTGRES_BIN_DIR: /nonexistent/bin cannot be used"), "{message}");
}

#[tokio::test]
async fn without_pip_one_line_says_what_to_install() {
    let home = home();
    let data_dir = home.path().join("data");
    let mut command = command(&this_binary(), &data_dir);
    command
        .env("PATH", "/nonexistent")
        .env("RUNLANE_POSTGRES_SOURCE", "package")
        .env("RUNLANE_PYTHON", "/nonexistent/python");
    let (_process, _said, answer) = launch(command).await;
    for part in ["no Python with pip", "/nonexistent/python", "python3", "DATABASE_URL"] {
        assert!(answer.contains(part), "{part} is missing: {answer}");
    }
}
