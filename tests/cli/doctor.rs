//! `runlane doctor`, and the start that a forgetful PostgreSQL is refused.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::process::{Home, Running, finish};
use crate::support::app::fresh_database;
use crate::support::postgres::empty_database;

/// The level and message of each finding of this check.
fn findings<'r>(report: &'r Value, check: &str) -> Vec<(&'r str, &'r str)> {
    let all = report["findings"].as_array().unwrap();
    let of = all.iter().filter(|f| f["check"] == check);
    of.map(|f| (f["level"].as_str().unwrap(), f["message"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong_and_fails_for_errors_only() {
    let home = Home::new();
    let url = fresh_database().await;
    let mut command = home.configured(&["doctor", "--json"], &url);
    command.env("OPENAI_API_KEY", "sk-never-to-be-shown");
    let output = finish(command).await;
    assert!(!output.stdout.contains("never-to-be-shown"), "{output:#?}");
    assert!(output.status.success(), "what was accepted is a warning: {output:#?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report:#}");
    for check in ["settings", "database", "connections", "clock", "schema", "queue", "workers"] {
        assert!(matches!(findings(&report, check)[..], [("ok", _)]), "{check}: {report:#}");
    }
    let [("ok", providers)] = findings(&report, "providers")[..] else { panic!("{report:#}") };
    assert!(providers.starts_with("served: mock, openai; not served"), "{providers}");
    assert!(providers.contains("anthropic (ANTHROPIC_API_KEY)"), "{providers}");
    assert!(matches!(findings(&report, "durability")[..], [("warning", m)] if m.contains("fsync = off")));
    let failover = findings(&report, "failover");
    assert!(matches!(failover[..], [("warning", m)] if m.contains("failover without loss needs one")));

    let mut command = home.configured(&["doctor"], &empty_database().await);
    command
        .env("RUNLANE_ALLOW_UNSAFE_POSTGRES", "false")
        .env("RUNLANE_API_POOL_SIZE", "1000")
        .env("RUNLANE_PYTHON", "/no/such/python");
    let output = finish(command).await;
    assert!(!output.status.success());
    for part in [
        "ERROR   durability   PostgreSQL may lose what it has confirmed: fsync = off",
        "ERROR   connections  one process takes up to 1012 of",
        "WARNING schema       ",
        "ERROR   workers      /no/such/python (RUNLANE_PYTHON) runs no worker",
        "Errors: 3, warnings: 2.",
    ] {
        assert!(output.stdout.contains(part), "{part}: {}", output.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_reports_settings_that_cannot_be_used_and_a_database_that_does_not_answer() {
    let home = Home::new();
    let mut command = home.runlane(&["doctor"]);
    command.env("RUNLANE_LEASE_MS", "never");
    let output = finish(command).await;
    assert!(!output.status.success());
    assert!(output.stdout.contains("ERROR   settings     RUNLANE_LEASE_MS \"never\""), "{}", output.stdout);
    let output = finish(home.configured(&["doctor"], "postgres://nobody:hidden@127.0.0.1:1/none")).await;
    assert!(!output.status.success());
    assert!(output.stdout.contains("ERROR   database     DATABASE_URL: "), "{}", output.stdout);
    assert!(!output.stdout.contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_may_forget_is_refused_before_anything_is_changed() {
    let home = Home::new();
    let url = empty_database().await;
    for command in ["serve", "work", "dev"] {
        let mut command = home.configured(&[command], &url);
        command.env_remove("RUNLANE_ALLOW_UNSAFE_POSTGRES");
        let output = finish(command).await;
        let refusal = output.refusal();
        for part in ["DATABASE_URL", "fsync = off", "RUNLANE_ALLOW_UNSAFE_POSTGRES=true"] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }
    let db = sqlx::PgPool::connect(&url).await.unwrap();
    let tables: i64 = sqlx::query_scalar("select count(*) from pg_tables where schemaname = 'public'")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(tables, 0);
    // Told that it may, it starts.
    let work = Running::start(&mut home.configured(&["work"], &url));
    work.logs("node registered").await;
    work.signal(Signal::SIGKILL);
    work.end().await;
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&db).await.unwrap();
    let sql = format!(r#"alter database "{name}" set synchronous_commit = off"#);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&db).await.unwrap();
    let mut command = home.configured(&["work"], &url);
    command.env_remove("RUNLANE_ALLOW_UNSAFE_POSTGRES");
    assert!(finish(command).await.refusal().contains("fsync = off, synchronous_commit = off"));
}
