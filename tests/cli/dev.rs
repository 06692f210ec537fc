//! `runlane dev`.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::process::{Home, Running};

#[tokio::test]
async fn it_serves_with_the_token_that_it_prints_until_it_is_interrupted() {
    let home = Home::new();
    let dev = Running::start(&mut home.runlane(&["dev"]));
    let link = dev.prints("/graphql#token=").await;
    let (url, token) = link.trim().split_once("#token=").unwrap();
    assert!(!home.processes().is_empty(), "its PostgreSQL runs");

    let page = reqwest::Client::new().get(url).header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("Runlane"));
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(token)
        .json(&json!({ "query": "mutation { pauseQueue { isPaused pausedBy } }" }));
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["data"]["pauseQueue"], json!({ "isPaused": true, "pausedBy": "dev" }));

    // What it prints to be typed works as it is.
    dev.prints("-H 'Content-Type").await;
    let curl = dev.prints("curl -s").await + "\n" + &dev.prints("-H 'Content-Type").await;
    let typed = tokio::process::Command::new("sh").arg("-c").arg(&curl).output().await.unwrap();
    let typed: Value = serde_json::from_slice(&typed.stdout).unwrap();
    assert_eq!(typed["data"]["queueStatus"]["isPaused"], true);

    dev.signal(Signal::SIGINT);
    let output = dev.end().await.ok();
    let secret = std::fs::read_to_string(home.data().join("jwt-secret")).unwrap();
    assert!(secret.len() >= 32 && !output.stdout.contains(&secret) && !output.stderr.contains(&secret));
    home.is_quiet();
}
