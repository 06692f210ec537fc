//! `migrate`, `schema` and `with-database`.

use std::process::Stdio;

use sqlx::PgPool;

use super::process::{Home, Output, Running, finish};
use crate::support::postgres::empty_database;

#[tokio::test]
async fn migrating_twice_changes_nothing_the_second_time() {
    let home = Home::new();
    let url = empty_database().await;
    for _ in 0..2 {
        let mut command = home.configured(&["migrate"], &url);
        command.env_remove("RUNLANE_JWT_SECRET");
        let output = finish(command).await.ok();
        assert_eq!(output.stdout, "The database's schema is up to date.\n");
    }
    let db = PgPool::connect(&url).await.unwrap();
    let (applied, runs): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM _sqlx_migrations), (SELECT count(*) FROM run)")
            .fetch_one(&db)
            .await
            .unwrap();
    assert!(applied >= 2 && runs == 0);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let home = Home::new();
    let url = empty_database().await;
    finish(home.configured(&["migrate"], &url)).await.ok();
    let db = PgPool::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99990101, 'of the future', true, '', 0)",
    )
    .execute(&db)
    .await
    .unwrap();
    let output = finish(home.configured(&["migrate"], &url)).await;
    assert!(output.refusal().contains("99990101"), "{output:#?}");
}

#[tokio::test]
async fn the_generated_files_are_the_committed_ones() {
    let home = Home::new();
    let printed = async |what| finish(home.runlane(&["schema", what])).await.ok().stdout;
    assert_eq!(printed("graphql").await, include_str!("../../schema/schema.graphql"), "run `make generate`");
    assert_eq!(printed("env").await, include_str!("../../.env.example"), "run `make generate`");
}

/// Holds the command until its stdin ends, so that the database can be looked at.
const SHOW_AND_WAIT: &str = "echo \"$DATABASE_URL\"; cat; exit 7";

async fn migrated_and_lent(home: &Home, database_url: Option<&str>) -> (String, Output) {
    let mut command = home.runlane(&["with-database", "--", "sh", "-c", SHOW_AND_WAIT]);
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let url = running.prints("postgres://").await;
    let db = PgPool::connect(&url).await.unwrap();
    let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM run").fetch_one(&db).await.unwrap();
    assert_eq!(runs, 0, "the schema is there, and nothing in it");
    db.close().await;
    drop(running.stdin());
    (url, running.end().await)
}

#[tokio::test]
async fn a_command_gets_a_server_of_its_own_and_gives_its_exit_code() {
    let home = Home::new();
    let (_, output) = migrated_and_lent(&home, None).await;
    assert_eq!(output.status.code(), Some(7), "{output:#?}");
    home.is_quiet();
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "no file is left");
}

#[tokio::test]
async fn a_command_gets_a_database_of_its_own_on_the_configured_server() {
    let home = Home::new();
    let url = empty_database().await;
    let (lent, output) = migrated_and_lent(&home, Some(&url)).await;
    assert_eq!(output.status.code(), Some(7), "{output:#?}");
    assert_ne!(lent, url);
    let error = PgPool::connect(&lent).await.expect_err("it is gone");
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_leaves_nothing() {
    let home = Home::new();
    let output = finish(home.runlane(&["with-database", "--", "no-such-program"])).await;
    assert!(output.refusal().contains("no-such-program"), "{output:#?}");
    home.is_quiet();
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "no file is left");
}
