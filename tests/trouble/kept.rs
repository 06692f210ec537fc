//! Connections that are used again without being asked for a sign of life.

use std::time::Duration;

use runlane::store::{PoolSettings, Store, connect};
use secrecy::SecretString;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::timeout;

use super::support::{PATIENT, number, until_locked_out};
use crate::support::app::{Cluster, PATIENCE};
use crate::support::proxy::Harm;

const WAITING: &str = "{ queueStatus { totalPending } }";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_next_does_not_hear_of_a_connection_that_is_gone() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(1).await;
    for harm in [Harm::Cut, Harm::Reset] {
        // At once, so that several connections are kept.
        let ask = || cluster.user(WAITING, json!({}));
        tokio::join!(ask(), ask(), ask()).0.data();
        proxy.harm_all(harm);
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        for answer in [a, b, c] {
            answer.data();
        }
        proxy.harm_all(harm);
        let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
    }
    assert_eq!(number(&cluster.db, "select count(*) from run").await, 2, "each was started once");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_comes_back_goes_to_whoever_waits_for_one() {
    let cluster = Cluster::api_only(&[
        ("RUNLANE_API_POOL_SIZE", "1"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "8000"),
        ("RUNLANE_DATABASE_RETRIES", "0"),
        ("RUNLANE_LOCK_TIMEOUT_MS", "60000"),
        ("RUNLANE_STATEMENT_TIMEOUT_MS", "60000"),
    ])
    .await;
    let mut holder = PgConnection::connect(&cluster.url).await.unwrap();
    holder.execute("begin; lock table definition").await.unwrap();
    let first = cluster.user("{ definitions(first: 1) { totalCount } }", json!({}));
    let second = async {
        until_locked_out(&cluster.db, 1).await;
        let free = async {
            // The other one is asking by now, or has its answer without having waited.
            tokio::time::sleep(Duration::from_millis(200)).await;
            holder.execute("rollback").await.unwrap();
        };
        tokio::join!(cluster.user(WAITING, json!({})), free).0
    };
    let (first, second) = tokio::join!(first, second);
    first.data();
    // It has not waited until its time was up.
    second.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_closes_though_connections_are_kept() {
    let cluster = Cluster::api_only(&[]).await;
    let settings = PoolSettings {
        size: 2,
        acquire_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(60),
        lock_timeout: Duration::from_secs(60),
    };
    let pool = connect(&SecretString::from(cluster.url.clone()), "keeper", settings).unwrap();
    let store = Store::new(pool).on_kept_connections();
    let mut holder = PgConnection::connect(&cluster.url).await.unwrap();
    holder.execute("begin; lock table scenario").await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(store.idle_connections(), 1);
    // One is in use when the end is announced.
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.scenario_keys(uuid::Uuid::nil()).await }
    });
    until_locked_out(&cluster.db, 1).await;
    store.ping().await.unwrap();
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    let kept = "select count(*) from pg_stat_activity where application_name = 'keeper' and state = 'idle'";
    while number(&cluster.db, kept).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    holder.execute("rollback").await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().len(), 0);
    timeout(PATIENCE / 2, closing).await.expect("it closes").unwrap();
    cluster.stop().await;
}
