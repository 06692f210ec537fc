//! The detector at work on real nodes.

use serde_json::json;

use super::{audited, definition, metric, number};
use crate::queue::support::{Node, assert_books_balance, attempts, jobs, quick, until_sql};
use crate::support::app::Cluster;

/// A known provider that no worker here can call: its jobs wait for ever.
const UNSERVED: &str = "openai/gpt-unserved";

#[tokio::test(flavor = "multi_thread")]
async fn each_job_is_reported_exactly_once_by_two_nodes_whose_leaders_are_killed() {
    let cluster = Cluster::api_only(&[]).await;
    let settings = quick(&[
        ("RUNLANE_STALENESS_INTERVAL_MS", "50"),
        ("RUNLANE_STALENESS_BATCH", "7"),
        ("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "1000"),
        ("RUNLANE_LEASE_MS", "3000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "300"),
    ]);
    let mut nodes = vec![Node::start(&cluster, "work", &settings), Node::start(&cluster, "work", &settings)];
    let definition = cluster.definition(400).await;
    cluster.run(&definition, &[UNSERVED], json!({})).await;
    for killed in 1..=3 {
        until_sql(
            &cluster.db,
            "some more reported",
            &format!("select count(*) >= {killed} * 5 from audit where action = 'staleness.report'"),
        )
        .await;
        let name: String = sqlx::query_scalar(
            "select n.name from leadership l join node n on n.id = l.node_id where l.duty = 'staleness'",
        )
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        // The leader, unless it has just changed.
        let at = nodes.iter().position(|n| name.ends_with(&format!(":{}", n.pid()))).unwrap_or(0);
        drop(nodes.remove(at));
        nodes.push(Node::start(&cluster, "work", &settings));
    }
    let all: Vec<i64> = sqlx::query_scalar(
        "select j.id from current_job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario' order by j.id",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    until_sql(
        &cluster.db,
        "all reported",
        "select coalesce(sum(jsonb_array_length(after -> 'jobs')), 0) >= 400 from audit where action = 'staleness.report'",
    )
    .await;
    drop(nodes);
    assert_eq!(audited(&cluster, "staleness.report").await, all, "each once");
    let warned = audited(&cluster, "staleness.warn").await;
    let mut once = warned.clone();
    once.dedup();
    assert_eq!(warned, once, "none twice");
    assert!(number(&cluster, "select epoch from leadership where duty = 'staleness'").await > 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_hangs_is_taken_back_its_worker_let_go_and_run_again() {
    let cluster = Cluster::with(&quick(&[
        ("RUNLANE_STALENESS_INTERVAL_MS", "50"),
        ("RUNLANE_STALE_IN_PROCESS_MS_PROBE_SCENARIO", "300"),
        ("RUNLANE_STALENESS_REQUEUES_MAX", "2"),
        ("RUNLANE_LEASE_MS", "3000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "300"),
    ]))
    .await;
    let lifecycle = json!({ "stalenessAction": "REQUEUE" });
    let definition = definition(&cluster, 1, lifecycle).await;
    let run = cluster.run(&definition, &["mock/echo?hang=1"], json!({})).await;
    until_sql(
        &cluster.db,
        "reported after two requeues",
        "select exists (select from audit where action = 'staleness.report')",
    )
    .await;
    let ended = attempts(&cluster.db).await;
    assert_eq!(
        ended.iter().map(|a| (a.number, a.outcome.as_str())).collect::<Vec<_>>(),
        [(1, "released"), (2, "released")]
    );
    let job = jobs(&cluster.db, &run).await.remove(0);
    assert_eq!((job.state.as_str(), job.claims, job.failures, job.losses), ("active", 3, 0, 0), "{job:?}");
    assert_eq!(audited(&cluster, "staleness.requeue").await, [job.id, job.id]);
    assert_books_balance(&cluster.db).await;
    // Both times the worker has let go, and what it then said came too late.
    metric(&cluster, "runlane_results_late_total 2").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_a_detector_that_is_off_do_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    let stale = [
        ("RUNLANE_STALENESS_INTERVAL_MS", "50"),
        ("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "1"),
        ("RUNLANE_STALENESS_ACTION", "requeue"),
    ];
    let definition = cluster.definition(3).await;
    cluster.run(&definition, &[UNSERVED], json!({})).await;
    let mut dry = stale.to_vec();
    dry.push(("RUNLANE_STALENESS_DRY_RUN", "true"));
    let node = Node::start(&cluster, "work", &quick(&dry));
    let line = node.until_logged("nothing is done about jobs that take long");
    assert!(line.contains("\"jobs\":3"), "{line}");
    let mut off = stale.to_vec();
    off.push(("RUNLANE_STALENESS_ENABLED", "false"));
    let other = Node::start(&cluster, "work", &quick(&off));
    drop((node, other));
    assert_eq!(number(&cluster, "select count(*) from audit where action like 'staleness.%'").await, 0);
    assert_eq!(number(&cluster, "select count(*) from staleness_mark").await, 0);
    cluster.stop().await;
}
