//! A database that was restored from a backup: nothing starts before a person has looked.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::process::{Home, finish};
use crate::support::app::Cluster;

/// A copy of the cluster's database, as a restored dump is one. Nobody may be connected to the original.
async fn copy_of(url: &str) -> String {
    let (server, name) = url.split_once("/runlane_test_").expect("a test's database");
    let name = name.split('?').next().expect("a name");
    let copy = url.replace(name, &format!("{name}_copy"));
    let mut admin = PgConnection::connect(&url.replace(&format!("runlane_test_{name}"), "postgres"))
        .await
        .unwrap_or_else(|e| panic!("{server}: {e}"));
    let create = format!(r#"create database "runlane_test_{name}_copy" template "runlane_test_{name}""#);
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
    copy
}

/// One run of three jobs, of which a node that no longer exists holds one.
async fn under_way(cluster: &Cluster) -> String {
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({ "name": "costly" })).await;
    let mut c = cluster.db.acquire().await.unwrap();
    sqlx::raw_sql(
        "insert into node (id, name, version, lease_until, executes)
         values ('00000000-0000-7000-8000-000000000001', 'gone', '0', clock_timestamp() + interval '1 hour', true);
         select claim_jobs('00000000-0000-7000-8000-000000000001', array['probe:scenario']::job_kind[], array[1])",
    )
    .execute(&mut *c)
    .await
    .unwrap();
    run
}

async fn report(url: &str, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["restored"].iter().chain(arguments).copied().collect();
    finish(Home::new().configured(&all, url)).await.ok().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_queue_starts_paused_and_says_what_may_run_twice() {
    let mut cluster = Cluster::api_only(&[]).await;
    let run = under_way(&cluster).await;
    assert_eq!(
        report(&cluster.url, &[]).await,
        "This database has not been restored since nodes use it.\n",
        "the original is where it was"
    );
    let copy = {
        cluster.shut().await;
        copy_of(&cluster.url).await
    };
    cluster.restart_on(&copy).await;

    let status = cluster.admin("{ queueStatus { isPaused pausedBy pauseReason } }", json!({})).await;
    let status = &status.data()["queueStatus"];
    assert_eq!((&status["isPaused"], &status["pausedBy"]), (&json!(true), &json!("system")));
    assert!(status["pauseReason"].as_str().unwrap().contains("runlane restored"), "{status}");

    let report: Value = serde_json::from_str(&report(&copy, &["--json"]).await).unwrap();
    let found = &report["runs"][0];
    assert_eq!(
        (&found["runId"], &found["name"], &found["createdBy"]),
        (&json!(run), &json!("costly"), &json!("ada"))
    );
    assert_eq!((found["active"].as_array().unwrap().len(), &found["waiting"]), (1, &json!(2)));

    // Resumed by a person, it stays so: where the database lives now is known.
    cluster.admin("mutation { resumeQueue { isPaused } }", json!({})).await.data();
    cluster.restart().await;
    let status = cluster.admin("{ queueStatus { isPaused } }", json!({})).await;
    assert_eq!(status.data()["queueStatus"]["isPaused"], json!(false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_say_that_a_physical_backup_was_restored() {
    let cluster = Cluster::api_only(&[]).await;
    let run = under_way(&cluster).await;
    let text = report(&cluster.url, &["--mark", "--as", "grace"]).await;
    assert!(text.contains(&run) && text.contains("Cancel what must not run again"), "{text}");
    let status = cluster.admin("{ queueStatus { isPaused pausedBy } }", json!({})).await;
    assert_eq!(status.data()["queueStatus"], json!({ "isPaused": true, "pausedBy": "grace" }));
    let acts: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select action, actor, role from audit where action in ('queue.restored', 'run.restored') order by id",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let grace = |action: &str| (action.to_owned(), "grace".to_owned(), Some("admin".to_owned()));
    assert_eq!(acts, [grace("queue.restored"), grace("run.restored")]);
    cluster.stop().await;
}
