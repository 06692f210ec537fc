//! What happens without anybody's asking, and leaves no attempt.

use std::time::Duration;

use runlane::domain::{JobKind, ids};
use runlane::store::{NewNode, Store};
use serde_json::json;

use super::support::{did, newest_job, of};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_way_through_its_states_is_on_record_whoever_moves_it() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    did(&cluster, "resumeRun(id: $id)", &run).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&run, "COMPLETED").await;
    let steps = of(&cluster.db, &["run.paused", "run.running", "run.completed"]).await;
    let steps: Vec<_> = steps.iter().map(|e| (e.actor.as_str(), e.action.as_str())).collect();
    assert_eq!(steps, [("ada", "run.paused"), ("ada", "run.running"), ("system", "run.completed")]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_that_a_cancel_takes_are_on_record_by_lane_and_analysis() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo", "mock/rater"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &run).await;
    did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    did(&cluster, "cancelRun(id: $id)", &run).await;
    let closed = of(&cluster.db, &["lane.closed"]).await;
    assert_eq!(closed.len(), 2, "one a model: {closed:#?}");
    for lane in closed {
        assert_eq!(lane.before, Some(json!({ "isOpen": true, "pending": 3, "cancelled": 0 })));
        assert_eq!(lane.after, Some(json!({ "isOpen": false, "pending": 0, "cancelled": 3 })));
        assert_eq!((lane.actor.as_str(), lane.run_id.unwrap().to_string()), ("ada", run.clone()));
    }
    let cancelled = of(&cluster.db, &["job.cancelled"]).await;
    assert_eq!(cancelled.len(), 1, "the analysis that waited: {cancelled:#?}");
    assert_eq!(cancelled[0].after, Some(json!({ "state": "cancelled" })));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_is_computed_anew_is_on_record() {
    let mut cluster = Cluster::api_only(&[]).await;
    cluster.add_node(&[]).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo?fail=validation"], json!({})).await;
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    assert_eq!(of(&cluster.db, &["analysis.restarted"]).await, []);
    let job = newest_job(&cluster.db, &run).await;
    did(&cluster, "retryJob(id: $id)", &job).await;
    cluster.until(&run, "done again", |s| s["status"] == "COMPLETED" && s["progress"]["failed"] == 2).await;
    let anew = of(&cluster.db, &["analysis.restarted"]).await;
    assert_eq!(anew.len(), 1, "{anew:#?}");
    assert_eq!((anew[0].actor.as_str(), anew[0].after.clone()), ("system", Some(json!({ "epoch": 1 }))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_stop_go_and_die_are_on_record() {
    let mut cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let id = ids::new_id();
    let node = NewNode {
        id,
        name: "test:1".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_millis(1)).await.unwrap();
    let definition = cluster.definition(2).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    store.renew_lease(id, Duration::from_secs(600)).await.unwrap();
    assert_eq!(store.claim_jobs(id, &[(JobKind::ProbeScenario, 2)]).await.unwrap().claims().len(), 2);
    store.renew_lease(id, Duration::ZERO).await.unwrap();
    assert_eq!(store.rescue_jobs(Duration::from_millis(1)).await.unwrap().len(), 2);
    store.rescue_jobs(Duration::from_millis(1)).await.unwrap();
    cluster.add_node(&[]).await;
    cluster.restart().await;
    let steps = of(&cluster.db, &["node.joined", "node.lost", "node.stopping", "node.left"]).await;
    let actions: Vec<_> = steps.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["node.joined", "node.lost", "node.joined", "node.stopping", "node.left"]);
    assert_eq!(
        steps[0].after,
        Some(json!({ "name": "test:1", "version": "0", "executes": true, "isDraining": false }))
    );
    assert_eq!(
        (&steps[1].subject_id, &steps[1].after),
        (&id.to_string(), &Some(json!({ "jobsGivenBack": 2 })))
    );
    assert!(steps[2..].iter().all(|e| e.subject_id == steps[2].subject_id && e.actor == "system"));
    cluster.stop().await;
}
