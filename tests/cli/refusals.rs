//! What `serve` does not start with: it ends at once, with a message that names the variable.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use runlane::config::settings;
use sqlx::PgPool;
use tokio::net::TcpListener;

use super::process::{Home, PASSWORD, finish};
use crate::support::app::fresh_database;
use crate::support::postgres::empty_database;
use crate::support::sockets;

/// What a process may take to give a database up.
const UNREACHABLE_MAX: Duration = Duration::from_secs(10);

async fn refused_without(variables: &[&str]) -> String {
    let home = Home::new();
    let mut command = home.configured(&["serve"], "postgres://postgres@127.0.0.1:1/none");
    for variable in variables {
        command.env_remove(variable);
    }
    finish(command).await.refusal().to_owned()
}

#[tokio::test]
async fn a_missing_url_and_a_missing_secret_are_named_at_once() {
    let refusal = refused_without(&["DATABASE_URL"]).await;
    assert!(refusal.contains("DATABASE_URL: is not set") && !refusal.contains("JWT"), "{refusal}");
    let refusal = refused_without(&["RUNLANE_JWT_SECRET"]).await;
    assert!(refusal.contains("RUNLANE_JWT_SECRET: is not set") && !refusal.contains("DATABASE"), "{refusal}");
    let refusal = refused_without(&["DATABASE_URL", "RUNLANE_JWT_SECRET"]).await;
    assert!(refusal.contains("DATABASE_URL") && refusal.contains("RUNLANE_JWT_SECRET"), "{refusal}");
}

#[tokio::test]
async fn a_short_secret_is_named_and_not_shown() {
    let home = Home::new();
    let mut command = home.configured(&["serve"], "postgres://postgres@127.0.0.1:1/none");
    command.env("RUNLANE_JWT_SECRET", "only-31-bytes-are-not-enough-..");
    let output = finish(command).await;
    let refusal = output.refusal();
    assert!(refusal.contains("RUNLANE_JWT_SECRET: is too short"), "{refusal}");
    assert!(!output.stderr.contains("only-31"), "{refusal}");
}

#[tokio::test]
async fn commands_refuse_a_schema_of_another_version_and_say_the_way_out() {
    let home = Home::new();
    let refusal = async |url: &str| {
        let mut said = Vec::new();
        for command in [
            &["lane", "list"][..],
            &["node", "list"],
            &["deadletter", "list"],
            &["archive", "--dry-run"],
            &["purge"],
            &["staleness", "check"],
            &["verify"],
        ] {
            said.push(finish(home.configured(command, url)).await.refusal().to_owned());
        }
        assert!(said.iter().all(|s| *s == said[0]), "{said:?}");
        said.remove(0)
    };
    let empty = refusal(&empty_database().await).await;
    assert!(empty.contains("not of this version") && empty.contains("run `runlane migrate`"), "{empty}");
    let url = fresh_database().await;
    finish(home.configured(&["lane", "list"], &url)).await.ok();
    let db = PgPool::connect(&url).await.unwrap();
    let change = async |sql: &'static str| sqlx::query(sql).execute(&db).await.unwrap();
    change(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99990101, 'of the future', true, '', 0)",
    )
    .await;
    let newer = refusal(&url).await;
    assert!(newer.contains("1 migrations of a newer program"), "{newer}");
    change("update _sqlx_migrations set checksum = '' where version = 1").await;
    let changed = refusal(&url).await;
    assert!(changed.contains("migrations [1] were applied with another text"), "{changed}");
}

#[tokio::test]
async fn every_number_out_of_its_range_is_named() {
    let home = Home::new();
    let mut tried = 0;
    for setting in settings() {
        let Some((min, max)) = setting.range.split_once(" to ") else { continue };
        let (Ok(min), Ok(max)) = (min.parse::<i128>(), max.parse::<i128>()) else { continue };
        for wrong in [(min - 1).to_string(), (max + 1).to_string(), "many".to_owned()] {
            let mut command = home.configured(&["serve"], "postgres://postgres@127.0.0.1:1/none");
            command.env(setting.variable, &wrong);
            let output = finish(command).await;
            let refusal = output.refusal();
            let line =
                refusal.lines().find(|l| l.trim_start().starts_with(&format!("{}:", setting.variable)));
            let line = line.unwrap_or_else(|| panic!("{wrong}: {refusal}"));
            assert!(line.contains(&wrong) && line.contains(&format!("{min} to {max}")), "{line}");
        }
        tried += 1;
    }
    assert!(tried > 60, "{tried} numbers");
}

#[tokio::test]
async fn a_database_that_refuses_or_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = nobody.local_addr().unwrap();
    sockets::close(nobody);
    for (address, reason) in [(refusing, "refused"), (silent.local_addr().unwrap(), "timed out")] {
        for command in ["serve", "work", "migrate"] {
            let home = Home::new();
            let began = Instant::now();
            let url = format!("postgres://postgres@{address}/none");
            let output = finish(home.configured(&[command], &url)).await;
            assert!(began.elapsed() < UNREACHABLE_MAX, "{command} took {:?}", began.elapsed());
            let refusal = output.refusal();
            assert!(refusal.contains("DATABASE_URL") && refusal.contains(reason), "{command}: {refusal}");
        }
    }
}

#[tokio::test]
async fn a_missing_database_and_a_bad_url_are_told_at_once() {
    let home = Home::new();
    let mut url = fresh_database().await;
    url = url.replacen("/runlane_test_", "/no_such_database_", 1);
    let output = finish(home.configured(&["serve"], &url)).await;
    assert!(output.refusal().contains("does not exist"), "{output:#?}");

    let mut command = home.configured(&["serve"], "postgres://postgres@127.0.0.1/none");
    command.env("DATABASE_URL", format!("postgres://postgres:{PASSWORD}@[not-a-host/none"));
    let output = finish(command).await;
    assert!(output.refusal().contains("DATABASE_URL"), "{output:#?}");
}

#[tokio::test]
async fn an_address_in_use_is_named_and_no_node_is_left() {
    let home = Home::new();
    let url = fresh_database().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = home.configured(&["serve"], &url);
    command.env("RUNLANE_LISTEN", taken.local_addr().unwrap().to_string());
    let output = finish(command).await;
    let refusal = output.refusal();
    assert!(refusal.contains("RUNLANE_LISTEN") && refusal.contains("in use"), "{refusal}");
    let db = PgPool::connect(&url).await.unwrap();
    let nodes: i64 = sqlx::query_scalar("SELECT count(*) FROM node").fetch_one(&db).await.unwrap();
    assert_eq!(nodes, 0);
}

#[tokio::test]
async fn a_setting_that_is_no_text_is_named() {
    let home = Home::new();
    let mut command = home.configured(&["serve"], "postgres://postgres@127.0.0.1:1/none");
    command.env("RUNLANE_LISTEN", OsStr::from_bytes(b"127.0.0.1:80\xff"));
    command.env("RUNLANE_ARCHIVE_REST", "-1");
    let output = finish(command).await;
    let refusal = output.refusal();
    assert!(refusal.contains("RUNLANE_LISTEN: is no UTF-8"), "{refusal}");
    assert!(refusal.contains("RUNLANE_ARCHIVE_REST"), "every mistake at once: {refusal}");
}
