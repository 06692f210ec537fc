//! Whatever comes under a claim that is gone is refused, counted, and brought to an end.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::queue::support::{assert_books_balance, attempts, quick, until_sql};
use crate::support::app::Cluster;

/// A figure of `/metrics`.
pub async fn metric(cluster: &Cluster, name: &str) -> u64 {
    let text =
        reqwest::get(format!("http://{}/metrics", cluster.address)).await.unwrap().text().await.unwrap();
    let line =
        text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_is_refused_and_counted_and_its_worker_is_stopped() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_WORKER_CONCURRENCY", "1")])).await;
    assert_eq!(metric(&cluster, "runlane_results_late_total").await, 0);
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    // Held back, so that the node does not take the job again.
    cluster.admin("mutation { pauseQueue { id } }", json!({})).await.data();
    let node: Uuid = sqlx::query_scalar("select id from node").fetch_one(&cluster.db).await.unwrap();
    sqlx::query("select release_claims(node_id, array[id], array[claims]), pg_notify('runlane_cancel', '') from current_job where state = 'active'")
        .execute(&cluster.db)
        .await
        .unwrap();
    until_sql(&cluster.db, "counted", "select bool_and(late_results = 1) from node").await;
    assert_eq!(metric(&cluster, "runlane_results_late_total").await, 1);
    let after: Uuid = sqlx::query_scalar("select id from node").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(after, node, "one claim is gone, the lease is not");
    let attempts = attempts(&cluster.db).await;
    assert_eq!((attempts.len(), attempts[0].outcome.as_str()), (1, "released"), "{attempts:#?}");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_begins_when_the_claim_that_is_on_its_way_has_committed() {
    let cluster = Cluster::api_only(&[]).await;
    cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    let store = runlane::store::Store::new(cluster.db.clone());
    let id = runlane::domain::ids::new_id();
    let node = runlane::store::NewNode {
        id,
        name: "test".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(600)).await.unwrap();
    let mut claim = cluster.db.begin().await.unwrap();
    let claimed = sqlx::query(
        "select from claim_jobs($1, array['probe:scenario']::job_kind[], array[1]) where job_id is not null",
    )
    .bind(id)
    .fetch_all(&mut *claim)
    .await
    .unwrap();
    assert_eq!(claimed.len(), 1);
    let stopping = tokio::spawn(async move { store.stop_node(id).await });
    let waits = "exists (select from pg_stat_activity
                          where datname = current_database() and wait_event_type = 'Lock' and query like '%from node%')";
    until_sql(&cluster.db, "waiting for the claim", waits).await;
    claim.commit().await.unwrap();
    stopping.await.unwrap().unwrap();
    let order = "(select claimed_at from current_job where state = 'active')
                  < (select at from audit where action = 'node.stopping')";
    until_sql(&cluster.db, "claimed before the drain", order).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_stay_within_their_page() {
    let cluster = Cluster::api_only(&[]).await;
    // Sessions report what they did when they end.
    let pool = sqlx::PgPool::connect(&cluster.url).await.unwrap();
    let store = runlane::store::Store::new(pool.clone());
    let id = runlane::domain::ids::new_id();
    let node = runlane::store::NewNode {
        id,
        name: "test".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(600)).await.unwrap();
    for _ in 0..200 {
        store.renew_lease(id, Duration::from_secs(600)).await.unwrap();
    }
    pool.close().await;
    // Whoever reads meanwhile may hold up the pruning of a page once.
    let counted = "select n_tup_upd >= 200 and n_tup_hot_upd >= 0.9 * n_tup_upd from pg_stat_user_tables where relname = 'node'";
    until_sql(&cluster.db, "nearly all of them HOT", counted).await;
    cluster.stop().await;
}
