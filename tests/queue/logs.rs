//! What a node logs.

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::support::{Node, attempts, jobs, parsed, quick};
use crate::support::app::{Cluster, SECRET};

const IDS: [&str; 7] = ["request_id", "batch_id", "run_id", "job_id", "attempt", "lane_id", "node_id"];

fn lines_of<'a>(log: &'a [Map<String, Value>], message: &str) -> Vec<&'a Map<String, Value>> {
    log.iter().filter(|line| line.get("message").and_then(Value::as_str) == Some(message)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_and_every_end_has_one_line_with_every_id_and_no_content() {
    let cluster = Cluster::api_only(&quick(&[])).await;
    let definition = cluster.definition(2).await;
    let models = [
        "mock/echo",
        // So often that one failure is left when the neighbour that crashes has cost some attempts.
        "mock/echo?failFirst=3",
        "mock/echo?fail=auth",
        "mock/echo?crash=exit",
        "mock/echo?fail=rate_limit&failFirst=3&retryAfterMs=5",
    ];
    let run = cluster.run(&definition, &models, json!({})).await;
    let node = Node::start(&cluster, "work", &[]);
    cluster.until_status(&run, "COMPLETED").await;
    let longer = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.until(&longer, "active", |s| s["progress"]["active"] == 2).await;
    node.signal(Signal::SIGTERM);
    let (_, raw) = tokio::task::spawn_blocking(move || node.wait()).await.unwrap();
    let log = parsed(&raw);
    let text = raw.join("\n");
    assert!(!text.contains("Rate option") && !text.contains(SECRET), "no prompt and no secret");
    let attempts = attempts(&cluster.db).await;
    let claimed = lines_of(&log, "job claimed");
    let probes =
        |lines: &[&Map<String, Value>]| lines.iter().filter(|l| l["kind"] == "probe:scenario").count();
    assert_eq!(probes(&claimed), attempts.len());
    for (message, outcome) in [
        ("job completed", "completed"),
        ("job will be retried", "retried"),
        ("job failed", "failed"),
        ("job was lost", "lost"),
        ("job was throttled", "throttled"),
        ("job was released", "released"),
    ] {
        let lines = lines_of(&log, message);
        let ends: Vec<_> = attempts.iter().filter(|a| a.outcome == outcome).collect();
        assert!(!ends.is_empty(), "the test covers {outcome}");
        assert_eq!(probes(&lines), ends.len(), "{message}");
        for end in ends {
            let ours = |l: &&&Map<String, Value>| l["job_id"] == end.job_id && l["attempt"] == end.number;
            assert_eq!(lines.iter().filter(ours).count(), 1, "{message}: {end:?}");
        }
        for line in lines.iter().chain(&claimed) {
            for id in IDS {
                let value = line.get(id).unwrap_or(&Value::Null);
                assert!(
                    value.is_number() || value.as_str().is_some_and(|s| !s.is_empty()),
                    "{id} in {line:?}"
                );
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_loss_has_a_line_for_each_job_with_every_id() {
    let lease = [("RUNLANE_LEASE_MS", "3000"), ("RUNLANE_LEASE_RENEWAL_MS", "500")];
    let cluster = Cluster::api_only(&quick(&lease)).await;
    let definition = cluster.definition(2).await;
    let dying = Node::start(&cluster, "work", &[]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    let other = Node::start(&cluster, "work", &[]);
    dying.signal(Signal::SIGKILL);
    other.until_logged("job was lost with its node");
    cluster.until(&run, "active again", |s| s["progress"]["active"] == 2).await;
    super::support::until_sql(&cluster.db, "claimed again", "select bool_and(claims = 2) from current_job")
        .await;
    other.signal(Signal::SIGTERM);
    let (_, raw) = tokio::task::spawn_blocking(move || other.wait()).await.unwrap();
    let log = parsed(&raw);
    let lines = lines_of(&log, "job was lost with its node; it goes back to the queue");
    let mut ids: Vec<i64> = lines.iter().map(|l| l["job_id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, jobs(&cluster.db, &run).await.iter().map(|j| j.id).collect::<Vec<_>>());
    for line in &lines {
        assert!(IDS.iter().all(|&id| line.get(id).is_some_and(|v| !v.is_null())), "{line:?}");
        assert_eq!(line["attempt"], 1);
    }
    cluster.stop().await;
}
