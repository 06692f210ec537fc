//! `runlane queue`: the whole queue, from a terminal.

use serde_json::{Value, json};

use super::process::{Home, finish};
use crate::support::app::Cluster;

async fn says(cluster: &Cluster, arguments: &[&str]) -> String {
    let home = Home::new();
    let mut command = home.configured(&[&["queue"], arguments].concat(), &cluster.url);
    // An operator has no secret.
    command.env_remove("RUNLANE_JWT_SECRET");
    finish(command).await.ok().stdout
}

async fn json_of(cluster: &Cluster, arguments: &[&str]) -> Value {
    serde_json::from_str(&says(cluster, &[arguments, &["--json"]].concat()).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_and_resumes_everything_in_a_name_and_with_a_reason() {
    let cluster = Cluster::start().await;
    let pause = ["pause", "--reason", "a bill", "--as", "grace"];
    let paused = json_of(&cluster, &pause).await;
    assert_eq!(
        (&paused["isPaused"], &paused["pausedBy"], &paused["pauseReason"]),
        (&json!(true), &json!("grace"), &json!("a bill"))
    );
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo?fail=auth"], json!({})).await;
    let text = says(&cluster, &["status"]).await;
    for part in
        [" by grace: a bill\n", "1 node executes jobs\n", "Nothing starts until `runlane queue resume`."]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let waiting = &json_of(&cluster, &["status"]).await["types"][0];
    assert_eq!((&waiting["type"], &waiting["pending"]), (&json!("probe:scenario"), &json!(2)));

    assert_eq!(json_of(&cluster, &["resume", "--as", "grace"]).await["isPaused"], json!(false));
    cluster.until_status(&run, "COMPLETED").await;
    let open = says(&cluster, &["status"]).await;
    assert!(open.starts_with("queue  open\n"), "{open}");
    assert!(open.ends_with("2 dead letters wait for somebody: `runlane deadletter list`.\n"), "{open}");
    let acts: Vec<(String, Option<String>)> =
        sqlx::query_as("select actor, note from audit where subject_kind = 'queue' order by id")
            .fetch_all(&cluster.db)
            .await
            .unwrap();
    assert!(acts.iter().all(|(actor, _)| actor == "grace") && acts.len() >= 2, "{acts:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_cannot_be_is_refused_and_nothing_is_paused() {
    let cluster = Cluster::api_only(&[]).await;
    let long = "x".repeat(501);
    let output = finish(Home::new().configured(&["queue", "pause", "--reason", &long], &cluster.url)).await;
    assert!(output.refusal().contains("reason"), "{output:#?}");
    let status = json_of(&cluster, &["status"]).await;
    assert_eq!((&status["isPaused"], &status["nodesExecuting"]), (&json!(false), &json!(0)));
    assert!(says(&cluster, &["status"]).await.contains("No node executes jobs"));
    cluster.stop().await;
}
