//! Nobody waits for a lock without end, and nobody keeps one in its sleep.

use std::time::Duration;

use runlane::store::{PoolSettings, connect};
use secrecy::SecretString;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, timeout};

use super::support::number;
use crate::support::app::{Cluster, PATIENCE, fresh_database};

/// Starts a run, holds its row, and pauses the run: the answer must come without it, and change nothing.
async fn is_answered_in_time(settings: &[(&str, &str)], says: &str) {
    let cluster = Cluster::api_only(settings).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    let mut holder = PgConnection::connect(&cluster.url).await.unwrap();
    holder.execute("begin; select from run for update").await.unwrap();
    let began = Instant::now();
    let pause = "mutation($id: ID!) { pauseRun(id: $id) { id } }";
    let answer = cluster.user(pause, json!({ "id": run })).await;
    let took = began.elapsed();
    assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{}", answer.body);
    let message = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains(says), "{message}");
    // The limit of the statement is 300 ms; the other one would be a minute.
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(20), "{took:?}");
    // Nothing of it is left that holds anybody up.
    holder.execute("rollback").await.unwrap();
    assert_eq!(cluster.state(&run).await["status"], "PENDING");
    let locked = "select count(*) from pg_locks l join pg_stat_activity a using (pid)
                   where l.locktype = 'advisory' and a.datname = current_database()";
    assert_eq!(number(&cluster.db, locked).await, 0);
    cluster.user(pause, json!({ "id": run })).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_longer_than_its_time_is_answered_unavailable() {
    let settings = [("RUNLANE_STATEMENT_TIMEOUT_MS", "300"), ("RUNLANE_LOCK_TIMEOUT_MS", "60000")];
    is_answered_in_time(&settings, "The database takes too long just now").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_a_lock_for_too_long_is_answered_unavailable() {
    let settings = [("RUNLANE_LOCK_TIMEOUT_MS", "300"), ("RUNLANE_STATEMENT_TIMEOUT_MS", "60000")];
    is_answered_in_time(&settings, "Others hold what has to be changed just now").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_ours_that_sleeps_in_a_transaction_is_ended_and_lets_go() {
    let url = fresh_database().await;
    let settings = PoolSettings {
        size: 1,
        acquire_timeout: PATIENCE,
        statement_timeout: Duration::from_millis(300),
        lock_timeout: PATIENCE,
    };
    let pool = connect(&SecretString::from(url.clone()), "sleeper", settings).unwrap();
    let mut sleeper = pool.acquire().await.unwrap();
    sleeper.execute("begin; lock table queue_state").await.unwrap();
    let mut next = PgConnection::connect(&url).await.unwrap();
    let let_go = next.execute("begin; lock table queue_state");
    timeout(PATIENCE, let_go).await.expect("the lock is free again").unwrap();
    sleeper.execute("select 1").await.expect_err("its session is gone");
}
