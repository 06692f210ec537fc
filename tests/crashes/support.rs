//! A cluster with one node that dies at a point, and what must hold afterwards.

use std::os::unix::process::ExitStatusExt;

use runlane::domain::Role;
use serde_json::{Value, json};

use crate::queue::support::{Node, quick};
use crate::support::app::Cluster;
use crate::support::direct::Direct;

/// A cluster that serves only; dead nodes are noticed soon.
pub async fn cluster() -> Cluster {
    Cluster::api_only(&quick(&[
        ("RUNLANE_LEASE_MS", "3000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "400"),
        ("RUNLANE_POLL_INTERVAL_MS", "200"),
        ("RUNLANE_MAINTENANCE_INTERVAL_MS", "200"),
        ("RUNLANE_WORKER_CONCURRENCY", "4"),
    ]))
    .await
}

/// A node of its own that dies when it comes to `point`, as FAILPOINTS has it.
pub fn doomed(cluster: &Cluster, point: &str) -> Node {
    Node::start(cluster, "serve", &[("FAILPOINTS", &format!("{point}=return"))])
}

/// Waits until it has died there.
pub async fn died(node: Node, point: &str) {
    let (status, lines) = tokio::task::spawn_blocking(move || node.wait()).await.unwrap();
    assert_eq!(status.signal(), Some(9), "{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.contains("dying on purpose") && line.contains(point)), "{lines:#?}");
}

/// Asks the doomed node, which dies of it: nobody hears an answer.
pub async fn asked(cluster: &Cluster, node: Node, point: &str, query: &str, variables: Value) {
    let line: Value = serde_json::from_str(&node.until_logged("\"listening\"")).unwrap();
    let address = line["address"].as_str().unwrap();
    let request = reqwest::Client::new()
        .post(format!("http://{address}/graphql"))
        .bearer_auth(cluster.token("ada", Role::User))
        .json(&json!({ "query": query, "variables": variables }));
    if let Ok(response) = request.send().await {
        panic!("it answered {}", response.text().await.unwrap());
    }
    died(node, point).await;
}

/// Waits until the run has this status and its analysis is there, and then finds everything as it must be.
pub async fn at_rest(cluster: Cluster, run: &str, status: &str, counts: [i64; 5]) {
    let state = cluster
        .until(run, "at rest", |s| {
            s["status"] == status && s["progress"]["active"] == 0 && s["analyses"][0]["status"] == "COMPLETED"
        })
        .await;
    assert_eq!(crate::control::support::counts(&state), counts, "{state:#}");
    let direct = Direct::on(&cluster.url).await;
    assert_eq!(direct.violations(true, &[run.parse().unwrap()]).await, []);
    cluster.stop().await;
}
