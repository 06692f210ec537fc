//! A lease is renewed in time, or given up in time; and the jobs of the dead come back soon.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use runlane::domain::JobKind;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::relay::Relay;
use crate::queue::support::{
    Node, assert_books_balance, attempts, children, is_running, jobs, quick, until_sql,
};
use crate::support::app::{Cluster, PATIENCE};
use crate::support::direct::Direct;

/// Short, and long enough for a node that lives to renew in time beside other tests.
const SHORT: [(&str, &str); 3] =
    [("RUNLANE_LEASE_MS", "3000"), ("RUNLANE_LEASE_RENEWAL_MS", "1000"), ("RUNLANE_WORKER_CONCURRENCY", "4")];

/// The node's lease as the database has it: until when, renewed when, and after how many failures.
async fn lease(db: &PgPool) -> (Uuid, DateTime<Utc>, DateTime<Utc>, i64) {
    sqlx::query_as("select id, lease_until, renewed_at, failed_renewals from node")
        .fetch_one(db)
        .await
        .unwrap()
}

async fn now(db: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()").fetch_one(db).await.unwrap()
}

/// Kills a node with jobs, and says how long it took until another had claimed them all.
async fn reclaimed_within(settings: &[(&str, &str)]) -> Duration {
    let cluster = Cluster::api_only(&quick(settings)).await;
    let definition = cluster.definition(4).await;
    let victim = Node::start(&cluster, "work", &[]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    let dead: Uuid = lease(&cluster.db).await.0;
    let other = Node::start(&cluster, "work", &[("RUNLANE_POLL_INTERVAL_MS", "600000")]);
    victim.signal(Signal::SIGKILL);
    let killed_at = Instant::now();
    let condition = format!(
        "select count(*) = 4 from current_job where state = 'active' and claims = 2 and node_id <> '{dead}'"
    );
    until_sql(&cluster.db, "claimed again", &condition).await;
    let time = killed_at.elapsed();
    let lost = attempts(&cluster.db).await;
    assert!(lost.len() == 4 && lost.iter().all(|a| a.outcome == "lost" && a.node_id == dead), "{lost:#?}");
    assert_books_balance(&cluster.db).await;
    drop((victim, other));
    cluster.stop().await;
    time
}

/// What a busy machine may add to a time that the rule gives.
const BUSY: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_jobs_are_claimed_again_within_a_lease_and_a_sweep() {
    let time = reclaimed_within(&SHORT).await;
    println!("reclaim lease_ms=3000 sweep_ms=1000 took_ms={}", time.as_millis());
    assert!(time < Duration::from_secs(4) + BUSY, "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_default_settings_a_dead_nodes_jobs_are_claimed_again_within_ten_seconds() {
    let time = reclaimed_within(&[("RUNLANE_WORKER_CONCURRENCY", "4")]).await;
    println!("reclaim lease_ms=6000 sweep_ms=2000 took_ms={}", time.as_millis());
    assert!(time < Duration::from_secs(10), "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_between_two_sweeps_is_judged_when_it_ends() {
    let settings = [
        ("RUNLANE_LEASE_MS", "12000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "4000"),
        ("RUNLANE_WORKER_CONCURRENCY", "1"),
    ];
    let mut cluster = Cluster::api_only(&quick(&settings)).await;
    let direct = Direct::on(&cluster.url).await;
    let dead = direct.node().await;
    let definition = cluster.definition(1).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    assert_eq!(direct.claim(dead, JobKind::ProbeScenario, 1).await.len(), 1);
    cluster.add_node(&[]).await;
    until_sql(&cluster.db, "joined", "select count(*) = 2 from node where executes").await;
    // It sweeps every 4 s from when it joined; leases are judged from 12 s after the first sweep on.
    let until: DateTime<Utc> = sqlx::query_scalar(
        "update node set lease_until = (select max(started_at) from node) + interval '18 s' where id = $1
         returning lease_until",
    )
    .bind(dead)
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    until_sql(&cluster.db, "given back", "select exists (select from attempt where outcome = 'lost')").await;
    let late = attempts(&cluster.db).await[0].ended_at - until;
    println!("judged after_ms={}", late.num_milliseconds());
    assert!(late.num_milliseconds() < 1_500, "{late}; the next sweep came 2 s after the lease's end");
    cluster.stop().await;
}

/// A node behind a relay, with one endless job in a worker.
async fn behind_a_relay(settings: &[(&str, &str)]) -> (Cluster, Relay, Node, String, Vec<u32>) {
    let cluster = Cluster::api_only(&quick(settings)).await;
    let definition = cluster.definition(1).await;
    let relay = Relay::to(&cluster.url).await;
    let node = Node::start(&cluster, "work", &[("DATABASE_URL", &relay.url())]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=3600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    // The claim commits before the worker has started.
    let deadline = Instant::now() + PATIENCE;
    while children(node.pid()).is_empty() {
        assert!(Instant::now() < deadline, "no worker");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let workers = children(node.pid());
    (cluster, relay, node, run, workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_no_answer_ends_its_workers_before_its_lease_ends() {
    let (cluster, relay, node, run, workers) =
        behind_a_relay(&[("RUNLANE_LEASE_MS", "3000"), ("RUNLANE_LEASE_RENEWAL_MS", "1000")]).await;
    relay.go_deaf();
    let id = lease(&cluster.db).await.0;
    let deadline = Instant::now() + PATIENCE;
    while workers.iter().any(|&pid| is_running(pid)) {
        assert!(Instant::now() < deadline, "the workers go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nobody else is there to sweep, so the row still says when the lease ends.
    let (same, until, ..) = lease(&cluster.db).await;
    let ended_at = now(&cluster.db).await;
    assert_eq!(same, id);
    assert!(ended_at < until, "the workers ended {} ms too late", (ended_at - until).num_milliseconds());
    let half = node.until_logged("lease_half_over");
    assert!(half.contains(r#""level":"ERROR""#), "{half}");
    node.until_logged("lease_given_up");
    relay.hear_again();
    until_sql(&cluster.db, "registered anew", &format!("select count(*) > 0 from node where id <> '{id}'"))
        .await;
    cluster.until(&run, "active again", |s| s["progress"]["active"] == 1).await;
    until_sql(
        &cluster.db,
        "claimed again",
        "select bool_and(claims = 2) from current_job where state = 'active'",
    )
    .await;
    let attempts = attempts(&cluster.db).await;
    // By the node itself, if it was heard before its lease ended; else by the sweep.
    assert_eq!(attempts.len(), 1);
    assert!(["released", "lost"].contains(&attempts[0].outcome.as_str()), "{attempts:#?}");
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_connections_are_refused_the_lease_clock_stands_still() {
    let (cluster, mut relay, node, _run, workers) = behind_a_relay(&SHORT).await;
    let before = lease(&cluster.db).await;
    relay.refuse().await;
    // Three leases long nobody can renew, and nobody else is there to judge.
    until_sql(
        &cluster.db,
        "long run out",
        "select bool_and(lease_until < clock_timestamp() - interval '6 s') from node",
    )
    .await;
    assert!(workers.iter().all(|&pid| is_running(pid)), "the workers go on");
    relay.reopen().await;
    until_sql(&cluster.db, "renewed", "select bool_and(lease_until > clock_timestamp()) from node").await;
    let after = lease(&cluster.db).await;
    assert_eq!(after.0, before.0, "the same node");
    assert!(after.3 > before.3, "failed renewals are reported with the next that succeeds");
    assert!(workers.iter().all(|&pid| is_running(pid)), "the workers go on");
    assert_eq!(attempts(&cluster.db).await.len(), 0, "the claim holds");
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_is_tried_again_at_once_and_not_at_the_next_turn() {
    let (cluster, relay, node, ..) =
        behind_a_relay(&[("RUNLANE_LEASE_MS", "9000"), ("RUNLANE_LEASE_RENEWAL_MS", "3000")]).await;
    let (.., mut last, failed) = lease(&cluster.db).await;
    assert_eq!(failed, 0);
    relay.cut();
    let longest = loop {
        let (.., renewed_at, failed) = lease(&cluster.db).await;
        if failed > 0 {
            break renewed_at - last;
        }
        last = renewed_at;
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // A renewal every 3 s: at the next turn would be 6 s.
    assert!(longest.num_milliseconds() < 4_500, "{longest}");
    assert!(!node.logged("lease_half_over"), "a failure that is mended at once is no event");
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_renew_for_half_a_lease_says_so_to_the_audit_once_it_can() {
    let (cluster, relay, node, ..) =
        behind_a_relay(&[("RUNLANE_LEASE_MS", "6000"), ("RUNLANE_LEASE_RENEWAL_MS", "1000")]).await;
    relay.go_deaf();
    node.until_logged("lease_half_over");
    relay.hear_again();
    until_sql(
        &cluster.db,
        "on record",
        "select count(*) = 1 from audit where action = 'node.lease_endangered'",
    )
    .await;
    let (id, .., failed) = lease(&cluster.db).await;
    let subject: String =
        sqlx::query_scalar("select subject_id from audit where action = 'node.lease_endangered'")
            .fetch_one(&cluster.db)
            .await
            .unwrap();
    assert_eq!(subject, id.to_string());
    assert!(failed > 0);
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_finds_its_claims_gone_and_starts_anew() {
    let cluster = Cluster::api_only(&quick(&SHORT)).await;
    let definition = cluster.definition(4).await;
    let frozen = Node::start(&cluster, "work", &[]);
    let run = cluster.run(&definition, &["mock/echo?delayMs=400"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    let id = lease(&cluster.db).await.0;
    frozen.signal(Signal::SIGSTOP);
    let other = Node::start(&cluster, "work", &[]);
    let condition =
        format!("select count(*) = 0 from current_job where state = 'active' and node_id = '{id}'");
    until_sql(&cluster.db, "given back", &condition).await;
    frozen.signal(Signal::SIGCONT);
    frozen.until_logged("registers anew");
    cluster.until_status(&run, "COMPLETED").await;
    for attempt in attempts(&cluster.db).await {
        assert_eq!(attempt.outcome == "lost", attempt.node_id == id && attempt.number == 1, "{attempt:?}");
    }
    assert!(jobs(&cluster.db, &run).await.iter().all(|j| j.state == "completed" && j.failures == 0));
    assert_books_balance(&cluster.db).await;
    drop((frozen, other));
    cluster.stop().await;
}
