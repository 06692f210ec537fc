//! What the files hold, and who may have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use runlane::config::Config;
use runlane::domain::export::ExportSubject;
use runlane::domain::{Requester, Role};
use serde_json::{Value, json};

use super::{ask, bytes, read_by_python};
use crate::archive::{BY_HAND, archive, count};
use crate::cli::process::{Home, finish};
use crate::control::support::is_analysis;
use crate::support::app::Cluster;

/// Pages of a few rows, so that every file has many.
const SMALL_PAGES: (&str, &str) = ("RUNLANE_EXPORT_PAGE_ROWS", "3");

/// A finished run of 12 completed and 12 failed probes, some of them archived.
async fn half_archived(cluster: &Cluster) -> String {
    let models = ["mock/rater", "mock/echo?fail=validation&failFirst=9"];
    let run = cluster.run(&cluster.definition(12).await, &models, json!({})).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    crate::archive::resolve(cluster).await;
    archive(cluster, 7).await;
    let archived = count(cluster, "select count(*) from archived_job").await;
    assert!(0 < archived && archived < 24, "{archived} are archived");
    run
}

/// The rows by job, those of Parquet and CSV made as those of JSON Lines.
fn by_job(rows: Vec<Value>) -> BTreeMap<String, Value> {
    let count = rows.len();
    let found: BTreeMap<_, _> = rows
        .into_iter()
        .map(|mut row| {
            for (name, value) in row.as_object_mut().unwrap() {
                let text = value.as_str().unwrap_or_default().to_owned();
                if text.is_empty() && value.is_string() {
                    *value = Value::Null;
                } else if ["dimensions", "turns"].contains(&name.as_str()) && value.is_string() {
                    *value = serde_json::from_str(&text).unwrap();
                } else if name.ends_with("At") && value.is_string() {
                    let time = text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
                    *value = json!(time.timestamp_micros());
                } else if ["score", "latencyMs"].contains(&name.as_str()) || name.ends_with("Tokens") {
                    *value = text.parse::<i64>().map_or(value.clone(), |number| json!(number));
                }
            }
            (row["jobId"].as_str().unwrap().to_owned(), row)
        })
        .collect();
    assert_eq!(found.len(), count, "each job once");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_holds_the_same_rows_hot_and_archived_and_reads_back() {
    let cluster = Cluster::with(&[BY_HAND[0], SMALL_PAGES]).await;
    let run = half_archived(&cluster).await;
    let dir = tempfile::tempdir().unwrap();
    for (what, rows, completed) in [("transcripts", 12, 12), ("scores", 24, 12)] {
        let mut files = Vec::new();
        for format in ["jsonl", "csv", "parquet"] {
            let file = dir.path().join(format!("{what}.{format}"));
            std::fs::write(&file, bytes(&cluster, &run, &format!("what={what}&format={format}")).await)
                .unwrap();
            files.push(by_job(read_by_python(&file)));
        }
        assert_eq!(files[0].len(), rows, "{what}");
        assert_eq!(files[0].values().filter(|row| !row["score"].is_null()).count(), completed, "{what}");
        assert_eq!(files[0], files[1], "{what}: CSV");
        assert_eq!(files[0], files[2], "{what}: Parquet");
        if what == "scores" {
            let failed = files[0].values().filter(|row| row["status"] == "FAILED");
            assert!(failed.map(|row| &row["errorCode"]).eq(std::iter::repeat_n(&json!("validation"), 12)));
        }
    }
    // The same as GraphQL says.
    let query = "query($id: ID!) { run(id: $id) { transcripts(first: 100) { nodes { id score modelId turns latencyMs costUsd } } } }";
    let answer = cluster.user(query, json!({ "id": run })).await;
    let lines = bytes(&cluster, &run, "").await;
    let lines = String::from_utf8(lines).unwrap();
    let rows = by_job(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    for node in answer.data()["run"]["transcripts"]["nodes"].as_array().unwrap() {
        let row = &rows[node["id"].as_str().unwrap()];
        for name in ["score", "modelId", "turns", "latencyMs", "costUsd"] {
            assert_eq!(row[name], node[name], "{name}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_the_same_file_as_the_server() {
    let cluster = Cluster::with(&[BY_HAND[0]]).await;
    let run = half_archived(&cluster).await;
    let home = Home::new();
    let file = home.path().join("scores.csv");
    let path = file.to_str().unwrap();
    let command = ["export", &run, "--what", "scores", "--format", "csv", "--output", path];
    finish(home.configured(&command, &cluster.url)).await.ok();
    assert_eq!(std::fs::read(&file).unwrap(), bytes(&cluster, &run, "what=scores&format=csv").await);
    let nobodys = ["export", "00000000-0000-7000-8000-000000000000", "--output", path];
    let refused = finish(home.configured(&nobodys, &cluster.url)).await;
    assert!(refused.refusal().contains("There is no run with the id"), "{refused:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"jobId,"), "the file that was there stands");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_for_those_who_may_see_the_run() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/rater"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    for (subject, role, status) in [
        ("ada", Role::User, 200),
        ("bob", Role::User, 404),
        ("eve", Role::Viewer, 200),
        ("root", Role::Admin, 200),
    ] {
        let answer = ask(&cluster, subject, role, &run, "").await;
        assert_eq!(answer.status(), status, "{subject}");
        if status == 200 {
            assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
            let named = format!("attachment; filename=\"{run}-transcripts.jsonl\"");
            assert_eq!(answer.headers()["content-disposition"], named.as_str());
        } else {
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["errors"][0]["extensions"]["code"], "NOT_FOUND");
        }
    }
    let address = format!("http://{}/runs/{run}/export", cluster.address);
    let answer = reqwest::get(&address).await.unwrap();
    assert_eq!(answer.status(), 401);
    let answer = reqwest::Client::new().post(&address).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["allow"]),
        (405, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exported_is_said_before_anything_is_read() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/rater"], json!({})).await;
    for (query, named) in [
        ("format=xml", "`format` must be jsonl (when left out), csv or parquet"),
        ("what=jobs", "`what` must be transcripts (when left out) or scores"),
        ("format=csv&format=csv", "`format` is given twice"),
        ("model=x", "the parameters `what` and `format` only"),
    ] {
        let answer = ask(&cluster, "ada", Role::User, &run, query).await;
        assert_eq!(answer.status(), 400, "{query}");
        let body: Value = answer.json().await.unwrap();
        let error = &body["errors"][0];
        assert_eq!(error["extensions"]["code"], "VALIDATION_ERROR", "{query}");
        assert!(error["message"].as_str().unwrap().contains(named), "{error}");
    }
    assert_eq!(ask(&cluster, "ada", Role::User, "no-id", "").await.status(), 404);
    let nothing = bytes(&cluster, &run, "format=csv").await;
    assert!(nothing.starts_with(b"jobId,") && nothing.iter().filter(|b| **b == b'\n').count() == 1);
    assert!(bytes(&cluster, &run, "").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_of_a_run_that_is_deleted_meanwhile_does_not_end_as_if_it_were_whole() {
    let cluster = Cluster::with(&[SMALL_PAGES]).await;
    let run = cluster.run(&cluster.definition(5).await, &["mock/rater"], json!({})).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    let config = Config::from_lookup(&|name| cluster.environment().get(name).cloned()).unwrap();
    let service = runlane::app::service(&Arc::new(config)).await.unwrap();
    let ada =
        Requester { subject: "ada".to_owned(), role: Role::User, group: None, request_id: String::new() };
    let mut rows = service.export(&ada, &run, ExportSubject::Scores).await.unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().len(), 3);
    let delete = "mutation($id: ID!) { deleteRun(id: $id) { id } }";
    assert_eq!(cluster.user(delete, json!({ "id": run })).await.data()["deleteRun"]["id"], run.as_str());
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "NOT_FOUND");
    cluster.stop().await;
}
