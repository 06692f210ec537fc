//! Limits on providers and models, shared by all nodes.

mod ceilings;
mod claims;
mod holds;
mod settings;

use serde_json::{Value, json};

use crate::support::app::{Answer, Cluster};

/// Sets a limit as an admin does.
async fn set_limit(cluster: &Cluster, ceilings: Value) -> Answer {
    cluster
        .admin(
            "mutation($name: String!, $inFlight: Int, $requestsPerMinute: Int, $tokensPerMinute: Int) {
                setLimit(name: $name, inFlight: $inFlight, requestsPerMinute: $requestsPerMinute,
                         tokensPerMinute: $tokensPerMinute) {
                    name inFlightMax requestsPerMinute tokensPerMinute setBy inFlight bearable requests tokens } }",
            ceilings,
        )
        .await
}

/// A limit as people see it.
async fn limit(cluster: &Cluster, name: &str) -> Value {
    let query = "{ limits { name inFlightMax requestsPerMinute tokensPerMinute setBy inFlight bearable requests tokens
                            heldUntil hold { code reason } } }";
    let answer = cluster.user(query, json!({})).await;
    let limits = answer.data()["limits"].as_array().unwrap();
    limits.iter().find(|l| l["name"] == name).cloned().unwrap_or(Value::Null)
}

/// Why each waiting job of a run waits, each reason once.
async fn reasons(cluster: &Cluster, run: &str) -> Vec<String> {
    let query = "query($id: ID!) { run(id: $id) { jobs(first: 100, filter: { status: PENDING }) {
        nodes { waitingBecause } } } }";
    let answer = cluster.user(query, json!({ "id": run })).await;
    let jobs = answer.data()["run"]["jobs"]["nodes"].as_array().unwrap();
    // One that has started since the page was read waits for nothing any more.
    let mut reasons: Vec<String> =
        jobs.iter().filter_map(|j| j["waitingBecause"].as_str().map(ToOwned::to_owned)).collect();
    reasons.sort();
    reasons.dedup();
    reasons
}
