//! The database goes away under a running server, and comes back.

use std::time::Duration;

use nix::sys::signal::Signal;
use runlane::embedded::Cluster;
use serde_json::{Value, json};

use super::process::{Home, Running};
use super::roles::Client;
use crate::support::app::PATIENCE;
use crate::support::postgres::settings_in;

async fn until_status(client: &Client, path: &str, status: u16) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = client.get(path).await;
        let got = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        if got == status {
            return body;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path}: {got} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_says_that_it_cannot_answer_now_and_recovers_by_itself() {
    let home = Home::new();
    let settings = settings_in(home.path().join("database"));
    let cluster = Cluster::start(&settings).await.unwrap();
    let mut command = home.configured(&["serve"], cluster.url());
    let server = Running::start(command.env("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "500"));
    let client = Client::of(&server).await;
    let health = until_status(&client, "/health", 200).await;
    assert_eq!(health["database"]["reachable"], true);
    let run = client.run(2).await;
    client.until_completed(&run).await;

    cluster.stop().await.unwrap();
    let answer = client.post("{ queueStatus { totalPending } }", json!({})).await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let extensions = &body["errors"][0]["extensions"];
    assert_eq!(extensions["code"], "UNAVAILABLE");
    assert!(extensions["retryAfterMs"].as_u64().unwrap() > 0, "{body}");
    assert_eq!(until_status(&client, "/health", 503).await["database"]["reachable"], false);
    until_status(&client, "/ready", 503).await;
    assert_eq!(client.get("/live").await.status(), 200, "the process itself is well");

    let cluster = Cluster::start(&settings).await.unwrap();
    until_status(&client, "/health", 200).await;
    until_status(&client, "/ready", 200).await;
    let run = client.run(2).await;
    client.until_completed(&run).await;

    server.signal(Signal::SIGTERM);
    server.end().await.ok();
    cluster.stop().await.unwrap();
    home.is_quiet();
}
