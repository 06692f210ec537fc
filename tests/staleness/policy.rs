//! Where thresholds and actions come from.

use runlane::domain::definition::StalenessAction;
use runlane::domain::staleness::Action;
use serde_json::{Value, json};

use super::{definition, number, sql};
use crate::support::app::Cluster;

/// What holds for a run of a definition with this lifecycle: threshold in minutes and action, by stage.
async fn in_force(cluster: &Cluster, lifecycle: Value) -> Vec<(String, i64, String)> {
    let definition = definition(cluster, 1, lifecycle).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    sqlx::query_as(
        "select stage::text, threshold_ms / 60000, action::text from v_staleness_thresholds t
          where run_id = $1::uuid order by t.stage",
    )
    .bind(run)
    .fetch_all(&cluster.db)
    .await
    .unwrap()
}

fn row(stage: &str, minutes: i64, action: &str) -> (String, i64, String) {
    (stage.to_owned(), minutes, action.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installation_says_60_minutes_waiting_and_30_in_process_and_reports() {
    let cluster = Cluster::api_only(&[]).await;
    assert_eq!(
        in_force(&cluster, json!({})).await,
        [
            row("waiting", 60, "REPORT"),
            row("waiting_for_retry", 60, "REPORT"),
            row("in_process", 30, "REPORT"),
            row("run", 1_440, "REPORT")
        ]
    );
    assert_eq!(
        number(&cluster, "select count(*) from staleness_threshold where warn_percent = 80").await,
        10
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_wins_over_the_installation_where_it_says_something() {
    let cluster = Cluster::api_only(&[("RUNLANE_STALENESS_ACTION", "dlq")]).await;
    let all = json!({ "maxDurationMinutes": 4, "maxWaitingForDependenciesMinutes": 1, "maxWaitingForRetryMinutes": 2,
                      "maxStepsInProcessMinutes": 3, "stalenessAction": "REQUEUE", "autoFailOnTimeout": true });
    assert_eq!(
        in_force(&cluster, all).await,
        [
            row("waiting", 1, "REQUEUE"),
            row("waiting_for_retry", 2, "REQUEUE"),
            row("in_process", 3, "REQUEUE"),
            row("run", 4, "FAIL")
        ]
    );
    // (lifecycle, what is done about jobs)
    for (lifecycle, action) in [
        (json!({}), "DLQ"),
        (json!({ "autoDlqOnTimeout": false }), "REPORT"),
        (json!({ "stalenessAction": "REPORT" }), "REPORT"),
        (json!({ "stalenessAction": "REPORT", "autoDlqOnTimeout": true }), "DLQ"),
        (json!({ "stalenessAction": "REQUEUE", "autoDlqOnTimeout": true }), "REQUEUE"),
        (json!({ "stalenessAction": "DLQ" }), "DLQ"),
        (json!({ "stalenessAction": "DLQ", "autoDlqOnTimeout": false }), "REPORT"),
    ] {
        let got = in_force(&cluster, lifecycle.clone()).await;
        let actions: Vec<&str> = got.iter().map(|r| r.2.as_str()).collect();
        assert_eq!(actions, [action, action, action, "REPORT"], "{lifecycle}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_configuration_is_in_force_and_a_node_that_does_not_lead_changes_nothing() {
    let cluster = Cluster::api_only(&[("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "120000")]).await;
    let waiting =
        "select threshold_ms from staleness_threshold where stage = 'waiting' and kind = 'probe:scenario'";
    assert_eq!(number(&cluster, waiting).await, 120_000);
    let mut cluster = cluster;
    cluster
        .add_node(&[
            ("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "240000"),
            ("RUNLANE_STALENESS_ENABLED", "false"),
        ])
        .await;
    assert_eq!(number(&cluster, waiting).await, 120_000);
    cluster
        .add_node(&[
            ("RUNLANE_STALE_WAITING_MS_PROBE_SCENARIO", "360000"),
            ("RUNLANE_STALENESS_INTERVAL_MS", "50"),
        ])
        .await;
    let led = "select threshold_ms = 360000 from staleness_threshold where stage = 'waiting' and kind = 'probe:scenario'";
    crate::queue::support::until_sql(&cluster.db, "in force", led).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_of_a_definition_is_one_of_the_detector_and_the_view_is_commented() {
    let cluster = Cluster::api_only(&[]).await;
    for action in StalenessAction::ALL {
        assert!(Action::ALL.iter().any(|a| a.as_str() == action.as_str()), "{action}");
    }
    let commented = "select count(*) from pg_class c where c.relname = 'v_task_staleness_monitoring'
                        and obj_description(c.oid) is not null";
    assert_eq!(number(&cluster, commented).await, 1);
    sql(&cluster, "select * from v_task_staleness_monitoring").await;
    cluster.stop().await;
}
