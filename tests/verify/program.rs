//! `runlane verify` as operators run it.

use serde_json::Value;
use sqlx::Executor;

use super::aged::aged_database;
use crate::cli::process::{Home, Output, finish};
use crate::support::direct::Direct;

async fn verify(url: &str, home: &Home, arguments: &[&str]) -> Output {
    let all: Vec<&str> = std::iter::once("verify").chain(arguments.iter().copied()).collect();
    finish(home.configured(&all, url)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_database_is_0_and_a_broken_one_1_with_a_line_for_each_violation() {
    let url = aged_database().await;
    let direct = Direct::on(&url).await;
    let home = Home::new();
    let output = verify(&url, &home, &[]).await.ok();
    assert!(output.stdout.starts_with("0 violations; "), "{output:#?}");

    direct.db.execute("update lane set priority = 77 where id = (select max(id) from lane)").await.unwrap();
    let output = verify(&url, &home, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("I5 run_status: run "), "{output:#?}");
    assert!(lines[1].starts_with("1 violations; "), "{output:#?}");

    let output = verify(&url, &home, &["--json"]).await;
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["check"].as_str(), lines[1]["violations"].as_i64()), (Some("run_status"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_runs_are_read_from_a_file_and_rest_is_asked_for() {
    let url = aged_database().await;
    let direct = Direct::on(&url).await;
    let known: String = sqlx::query_scalar("select string_agg(id::text, E'\\n') from run")
        .fetch_one(&direct.db)
        .await
        .unwrap();
    let home = Home::new();
    let file = home.path().join("acked");
    let path = file.to_str().unwrap();
    std::fs::write(&file, format!("{known}\n\n")).unwrap();
    verify(&url, &home, &["--expect-runs", path]).await.ok();
    std::fs::write(&file, format!("{known}\n{}\n", runlane::domain::ids::new_id())).unwrap();
    let output = verify(&url, &home, &["--expect-runs", path]).await;
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(output.stdout.starts_with("I1 run_missing: run "), "{output:#?}");
    let output = verify(&url, &home, &["--quiescent"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(output.stdout.contains("I2 job_unfinished: job "), "{output:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_2_and_says_why() {
    let home = Home::new();
    let output = verify("postgres://postgres@127.0.0.1:1/none", &home, &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.refusal().contains("DATABASE_URL"), "{output:#?}");

    let url = crate::support::postgres::empty_database().await;
    let output = verify(&url, &home, &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.refusal().contains("runlane migrate"), "{output:#?}");

    let file = home.path().join("acked");
    std::fs::write(&file, "\nnot-an-id\n").unwrap();
    let output = verify(&url, &home, &["--expect-runs", file.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.refusal().contains("line 2: \"not-an-id\" is no run's id"), "{output:#?}");

    let mut unset = home.configured(&["verify"], &url);
    unset.env_remove("DATABASE_URL");
    let output = finish(unset).await;
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    assert!(output.refusal().contains("DATABASE_URL: is not set"), "{output:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_can_be_listed() {
    let home = Home::new();
    let output = finish(home.runlane(&["verify", "--list"])).await.ok();
    for rule in runlane::store::rules() {
        assert!(output.stdout.contains(rule.check) && output.stdout.contains(rule.rule), "{output:#?}");
    }
}
