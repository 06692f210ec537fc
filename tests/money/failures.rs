//! A run in which too much fails is paused or stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use runlane::domain::{AttemptOutcome, JobKind};
use runlane::store::RunChange;
use serde_json::{Value, json};
use uuid::Uuid;

use super::violations;
use crate::support::app::{Cluster, fresh_database};
use crate::support::direct::{Direct, end};

const PROBE: JobKind = JobKind::ProbeScenario;

async fn halt_of(direct: &Direct, run: Uuid) -> (String, Option<String>) {
    sqlx::query_as("select status::text, halt_reason from run where id = $1")
        .bind(run)
        .fetch_one(&direct.db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ends_that_come_together_the_one_that_makes_the_minimum_full_pauses_the_run() {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(30).await;
    let run = direct.start(definition, &["mock/echo", "mock/rater"], None).await;
    sqlx::query("update lane set is_guarded = true").execute(&direct.db).await.unwrap();
    sqlx::query("update run set max_failure_rate = 0.5, min_finished = 20")
        .execute(&direct.db)
        .await
        .unwrap();
    let mut ends = Vec::new();
    for _ in 0..4 {
        let node = direct.node().await;
        ends.extend(direct.claim(node, PROBE, 10).await.into_iter().map(|claim| (node, claim)));
    }
    let fail = |(node, claim)| direct.end(node, end(claim, PROBE, AttemptOutcome::Failed));
    let (now, later) = ends.split_at(30);
    join_all(now.iter().copied().map(fail)).await;
    let (status, reason) = halt_of(&direct, run).await;
    assert_eq!(status, "PAUSED");
    let reason = reason.unwrap();
    assert!(reason.starts_with("20 of the last 20 probes failed, more than the 50 %"), "{reason}");
    let halts: i64 = sqlx::query_scalar("select count(*) from audit where action = 'run.halted'")
        .fetch_one(&direct.db)
        .await
        .unwrap();
    assert_eq!(halts, 1);
    // Whoever resumes it has seen these failures: it counts anew.
    direct.force(run, RunChange::Resume).await;
    join_all(later.iter().copied().map(fail)).await;
    assert_eq!(halt_of(&direct, run).await, ("RUNNING".to_owned(), None));
    assert_eq!(direct.violations(false, &[]).await, []);
}

/// It may have to pause all of them; taken one after the other, two such ends would wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_takes_all_lanes_of_a_guarded_run_before_it_changes_one() {
    const WAITS: &str = "select exists (select from pg_stat_activity a
                                         where a.datname = current_database() and a.wait_event_type = 'Lock')";
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(9).await;
    direct.start(definition, &["mock/echo", "mock/rater"], None).await;
    sqlx::query("update lane set is_guarded = true").execute(&direct.db).await.unwrap();
    sqlx::query("update run set max_failure_rate = 0.5, min_finished = 20")
        .execute(&direct.db)
        .await
        .unwrap();
    let node = direct.node().await;
    let claims = direct.claim(node, PROBE, 2).await;
    let mut other = direct.db.begin().await.unwrap();
    let first: i64 = sqlx::query_scalar("select id from lane order by id limit 1 for update")
        .fetch_one(&mut *other)
        .await
        .unwrap();
    let job: i64 = sqlx::query_scalar("select id from current_job where state = 'active' and lane_id <> $1")
        .bind(first)
        .fetch_one(&direct.db)
        .await
        .unwrap();
    let of_second_lane = *claims.iter().find(|c| c.job_id == job).unwrap();
    let is_done = AtomicBool::new(false);
    let ending = async {
        direct.end(node, end(of_second_lane, PROBE, AttemptOutcome::Failed)).await;
        is_done.store(true, Ordering::Relaxed);
    };
    let looking = async {
        while !is_done.load(Ordering::Relaxed)
            && !sqlx::query_scalar::<_, bool>(WAITS).fetch_one(&direct.db).await.unwrap()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!is_done.load(Ordering::Relaxed), "the other lane is somebody else's");
        other.commit().await.unwrap();
    };
    tokio::join!(ending, looking);
    assert_eq!(direct.violations(false, &[]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_reached_and_not_exceeded_trips_nothing() {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(9).await;
    let node = direct.node().await;
    let run = direct.start(definition, &["mock/echo"], None).await;
    sqlx::query("update lane set is_guarded = true").execute(&direct.db).await.unwrap();
    sqlx::query("update run set max_failure_rate = 0.5, min_finished = 2").execute(&direct.db).await.unwrap();
    for outcome in [AttemptOutcome::Failed, AttemptOutcome::Completed] {
        let claims = direct.claim(node, PROBE, 1).await;
        direct.end(node, end(claims[0], PROBE, outcome)).await.unwrap();
    }
    assert_eq!(halt_of(&direct, run).await.0, "RUNNING");
    let claims = direct.claim(node, PROBE, 1).await;
    direct.end(node, end(claims[0], PROBE, AttemptOutcome::Failed)).await.unwrap();
    assert_eq!(halt_of(&direct, run).await.0, "PAUSED", "2 of 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_to_be_stopped_fails_and_what_waits_is_cancelled() {
    let mut cluster = Cluster::with(&[("RUNLANE_WORKER_CONCURRENCY", "4")]).await;
    cluster.add_node(&[]).await;
    let definition = cluster.definition(100).await;
    let guard = json!({ "maxFailureRate": 0.3, "minFinished": 10, "onFailureRate": "STOP" });
    let run = cluster.run(&definition, &["mock/rater", "mock/echo?fail=validation&delayMs=5"], guard).await;
    let ended = |state: &Value| state["status"] == "FAILED" && state["progress"]["active"] == 0;
    let state = cluster.until(&run, "FAILED", ended).await;
    let progress = &state["progress"];
    assert!(progress["cancelled"].as_i64().unwrap() > 0 && progress["pending"] == 0, "{progress}");
    assert_eq!(progress["percentComplete"], 100.0);
    let query = "query($id: ID!) { run(id: $id) { haltedBecause failureGuard { maxFailureRate minFinished onFailureRate } } }";
    let seen = cluster.user(query, json!({ "id": run })).await.data()["run"].clone();
    assert!(seen["haltedBecause"].as_str().unwrap().contains("probes failed"), "{seen}");
    assert_eq!(
        seen["failureGuard"],
        json!({ "maxFailureRate": 0.3, "minFinished": 10, "onFailureRate": "STOP" })
    );
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    assert_eq!(violations(&cluster).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_has_waited_for_a_halt_starts_nothing_of_the_run() {
    for (action, status) in [("PAUSE", "PAUSED"), ("STOP", "FAILED")] {
        let direct = Direct::on(&fresh_database().await).await;
        let definition = direct.definition(5).await;
        let node = direct.node().await;
        let run = direct.start(definition, &["mock/echo"], None).await;
        assert_eq!(direct.claim(node, PROBE, 1).await.len(), 1, "it is RUNNING");
        let mut halting = direct.db.begin().await.unwrap();
        sqlx::query("select from lane where run_id = $1 order by id for update")
            .bind(run)
            .execute(&mut *halting)
            .await
            .unwrap();
        let claiming = direct.claim(node, PROBE, 3);
        let halt = async {
            let waits = "select exists (select from pg_locks l join pg_database d on d.oid = l.database
                                         where not l.granted and d.datname = current_database())
                             or exists (select from pg_stat_activity a where a.datname = current_database()
                                         and a.wait_event_type = 'Lock')";
            while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&direct.db).await.unwrap() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            sqlx::query("select halt_run($1, 'failureRate', 'on purpose', $2)")
                .bind(run)
                .bind(action)
                .execute(&mut *halting)
                .await
                .unwrap();
            halting.commit().await.unwrap();
        };
        let (claims, ()) = tokio::join!(claiming, halt);
        assert_eq!(claims, [], "{action}");
        assert_eq!(halt_of(&direct, run).await.0, status);
        assert_eq!(direct.violations(false, &[]).await, []);
    }
}
