//! The revision of a run.

use serde_json::{Value, json};

use super::support::{counts, did, is_analysis, probes, snapshot};
use crate::support::app::Cluster;

/// The last revision that was seen.
struct Seen(Value);

impl Seen {
    /// Something visible has changed: so have the revision and the time.
    #[track_caller]
    fn grows(&mut self, now: Value, after: &str) {
        let number = |run: &Value| run["revision"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(number(&now) > number(&self.0), "the revision does not grow after {after}: {now}");
        assert!(
            now["updatedAt"].as_str().unwrap() > self.0["updatedAt"].as_str().unwrap(),
            "updatedAt does not move after {after}: {now}"
        );
        self.0 = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revision_grows_with_every_visible_change_and_updated_at_moves() {
    let mut cluster = Cluster::api_only(&[]).await;
    let models = ["mock/echo", "mock/echo?fail=validation", "mock/rater?delayMs=1500"];
    let run = cluster.run(&cluster.definition(2).await, &models, json!({ "maxConcurrency": 2 })).await;
    let look = async |cluster: &Cluster| snapshot(cluster, &run).await;
    let mut seen = Seen(look(&cluster).await);
    for call in [
        "pauseRun(id: $id)",
        "resumeRun(id: $id)",
        "setRunPriority(id: $id, priority: HIGH)",
        "startAnalysis(runId: $id, kind: DEEP)",
    ] {
        did(&cluster, call, &run).await;
        seen.grows(look(&cluster).await, call);
    }
    let waiting = probes(&cluster, &run, "PENDING").await;
    did(&cluster, "cancelJob(id: $id)", &waiting[0]).await;
    seen.grows(look(&cluster).await, "cancelJob");
    assert_eq!(look(&cluster).await, seen.0, "looking changes nothing");

    cluster.add_node(&[]).await;
    cluster.until(&run, "started", |s| counts(s)[1] > 0).await;
    seen.grows(look(&cluster).await, "the first claim");
    cluster.until(&run, "one completed", |s| counts(s)[2] > 0).await;
    seen.grows(look(&cluster).await, "a completion");
    cluster
        .until(&run, "ended and analysed", |s| {
            s["status"] == "COMPLETED"
                && is_analysis(s, "BASIC", "COMPLETED")
                && is_analysis(s, "DEEP", "COMPLETED")
        })
        .await;
    seen.grows(look(&cluster).await, "the end");
    did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    seen.grows(look(&cluster).await, "retryFailedJobs");
    cluster
        .until(&run, "ended", |s| s["status"] == "COMPLETED" && is_analysis(s, "BASIC", "COMPLETED"))
        .await;
    seen.grows(look(&cluster).await, "the second end");

    let other = cluster.run(&cluster.definition(1).await, &["mock/echo?delayMs=1000"], json!({})).await;
    let before = snapshot(&cluster, &other).await;
    did(&cluster, "cancelRun(id: $id)", &other).await;
    Seen(before).grows(snapshot(&cluster, &other).await, "cancelRun");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_different_views_of_a_run_have_the_same_revision() {
    let cluster = Cluster::start().await;
    let models = ["mock/echo?delayMs=20", "mock/echo?failFirst=1&fail=validation"];
    let run = cluster.run(&cluster.definition(60).await, &models, json!({ "maxConcurrency": 4 })).await;
    let mut views = std::collections::BTreeMap::<u64, Value>::new();
    let mut last = 0;
    loop {
        let view = cluster.state(&run).await;
        let revision: u64 = view["revision"].as_str().unwrap().parse().unwrap();
        assert!(revision >= last, "the revision shrinks");
        last = revision;
        let done = view["status"] == "COMPLETED" && is_analysis(&view, "BASIC", "COMPLETED");
        // Progress and status come from the counted row; analyses are read after it, and may be newer.
        let mut counted = view.clone();
        counted.as_object_mut().unwrap().remove("analyses");
        if let Some(earlier) = views.insert(revision, counted.clone()) {
            assert_eq!(earlier, counted, "two views with one revision");
        }
        if done {
            break;
        }
    }
    assert!(views.len() > 3, "the run was seen changing");
    cluster.stop().await;
}
