//! A run of any size is retried in steps, between which everybody else gets a turn.

use std::sync::Arc;

use runlane::domain::leader::Duty;
use serde_json::json;

use super::support::{act, counts, did, is_analysis, number, queue, snapshot};
use crate::queue::support::{Node, until_sql};
use crate::support::app::Cluster;
use crate::support::direct::Direct;

/// Ten jobs a step.
const BY_TEN: [(&str, &str); 1] = [("RUNLANE_RETRY_BATCH", "10")];
const DOOMED: [&str; 2] = ["mock/echo?fail=validation&a=1", "mock/echo?fail=validation&a=2"];

/// A run of two models in which `2 * n` jobs failed.
async fn failed(cluster: &Cluster, n: usize) -> String {
    let run = cluster.run(&cluster.definition(n).await, &DOOMED, json!({})).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_retries_more_than_a_batch_and_all_are_retried() {
    let cluster = Cluster::with(&BY_TEN).await;
    let run = failed(&cluster, 23).await;
    queue(&cluster, "pauseQueue").await;
    let retried = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!((&retried["status"], counts(&retried)), (&json!("RUNNING"), [46, 0, 0, 0, 0]));
    let steps = "select max(n) * 100 + count(*) from (
                    select count(*) as n from job j join lane l on l.id = j.lane_id
                     where l.run_id = $1 and l.model is not null and j.epoch = 1 group by j.xmin::text) as s";
    assert_eq!(number(&cluster, steps, &run).await, 1_005, "five steps of at most ten");
    let acts = "select sum((before ->> 'failed')::int - (after ->> 'failed')::int) from audit
                 where run_id = $1 and action = 'retryFailedJobs'";
    assert_eq!(number(&cluster, acts, &run).await, 46, "each step is on record with what it changed");
    let closed = "select count(*) from dead_letter where run_id = $1 and status = 'manually_resolved'";
    assert_eq!(number(&cluster, closed, &run).await, 46);
    let direct = Direct::on(&cluster.url).await;
    assert_eq!(direct.violations(false, &[run.parse().unwrap()]).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_again_meanwhile_is_not_retried_twice() {
    // Nodes are as quick as the steps: the first jobs have failed again long before the last ones wait.
    let cluster = Cluster::with(&[("RUNLANE_RETRY_BATCH", "1")]).await;
    let run = failed(&cluster, 40).await;
    did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    cluster.until_status(&run, "COMPLETED").await;
    let epochs =
        "select (min(j.epoch) * 1000 + max(j.epoch))::bigint from current_job j join lane l on l.id = j.lane_id
                   where l.run_id = $1 and l.model is not null";
    assert_eq!(number(&cluster, epochs, &run).await, 1_001);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_gets_its_turn_between_two_steps_and_is_the_last_word() {
    let cluster = Arc::new(Cluster::with(&BY_TEN).await);
    let run = failed(&cluster, 20).await;
    queue(&cluster, "pauseQueue").await;
    // The second step waits for one of its jobs.
    let mut held = cluster.db.begin().await.unwrap();
    sqlx::query(
        "select from job where id = (select j.id from job j join lane l on l.id = j.lane_id
                                      where l.run_id = $1::uuid and l.model is not null
                                      order by l.id, j.id offset 15 limit 1) for update",
    )
    .bind(&run)
    .execute(&mut *held)
    .await
    .unwrap();
    let waits = |lock: &str| {
        format!(
            "select exists (select from pg_locks l join pg_stat_activity a using (pid)
                             where a.datname = current_database() and not l.granted and {lock})"
        )
    };
    let ask = |call| {
        let (cluster, run) = (Arc::clone(&cluster), run.clone());
        tokio::spawn(async move { act(&cluster, call, &run).await.data()["it"].clone() })
    };
    let retry = ask("retryFailedJobs(runId: $id)");
    until_sql(&cluster.db, "in the second step", &waits("l.locktype = 'transactionid'")).await;
    let cancel = ask("cancelRun(id: $id, mode: GRACEFUL)");
    let at_the_gate = waits("l.locktype = 'advisory' and l.mode = 'ExclusiveLock'");
    until_sql(&cluster.db, "behind it at the gate", &at_the_gate).await;
    held.rollback().await.unwrap();

    assert_eq!(counts(&cancel.await.unwrap()), [0, 0, 0, 20, 20]);
    let answer = retry.await.unwrap();
    assert_eq!((&answer["status"], counts(&answer)), (&json!("CANCELLED"), [0, 0, 0, 20, 20]));
    let refused = act(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(refused.code(), "RUN_STATE_ERROR");
    Arc::into_inner(cluster).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cuts_off_is_whole_and_asking_again_completes_it() {
    let mut cluster = Cluster::with(&BY_TEN).await;
    let run = failed(&cluster, 20).await;
    queue(&cluster, "pauseQueue").await;
    // The second step commits and is the last thing that this node does.
    let dying = [("FAILPOINTS", "retry.after=1*off->return"), BY_TEN[0]];
    let node = Node::start(&cluster, "serve", &dying);
    let query = "mutation($id: ID!) { retryFailedJobs(runId: $id) { id } }";
    crate::crashes::asked(&cluster, node, "retry.after", query, json!({ "id": run })).await;
    let cut_off = cluster.state(&run).await;
    assert_eq!((&cut_off["status"], counts(&cut_off)), (&json!("RUNNING"), [20, 0, 0, 20, 0]));
    let direct = Direct::on(&cluster.url).await;
    assert_eq!(direct.violations(false, &[run.parse().unwrap()]).await, []);
    let retried = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(counts(&retried), [40, 0, 0, 0, 0]);
    queue(&cluster, "resumeQueue").await;
    cluster.add_node(&[]).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 0, 40, 0]);
    cluster.stop().await;
}

/// A run that its guard stopped, with the rows of what it cancelled rewritten.
async fn stopped_and_settled(cluster: &Cluster) -> String {
    let run = super::guard::stopped(cluster).await;
    sqlx::raw_sql(
        "update job j set state = 'cancelled', is_fresh = false, finished_at = l.closed_at
           from lane l where l.id = j.lane_id and j.state = 'pending' and not l.is_open;
         update lane set is_settled = true, priority = (select priority from run)",
    )
    .execute(&cluster.db)
    .await
    .unwrap();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_had_cancelled_is_taken_back_in_batches_too() {
    let cluster = Cluster::api_only(&[("RUNLANE_RETRY_BATCH", "3")]).await;
    let run = stopped_and_settled(&cluster).await;
    let reopened = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!((&reopened["status"], counts(&reopened)), (&json!("RUNNING"), [11, 0, 0, 0, 1]));
    let most = "select max(n) from (select count(*) as n from job j join lane l on l.id = j.lane_id
                                     where l.run_id = $1 and j.state = 'pending' group by j.xmin::text) as s";
    assert_eq!(number(&cluster, most, &run).await, 3);
    let direct = Direct::on(&cluster.url).await;
    assert_eq!(direct.violations(false, &[run.parse().unwrap()]).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_is_taken_back_and_maintenance_leaves_it_alone_for_a_while() {
    let cluster = Cluster::api_only(&[]).await;
    let run = stopped_and_settled(&cluster).await;
    let before = snapshot(&cluster, &run).await;
    assert_eq!(number(&cluster, "select take_back_cancelled($1, 4)::bigint", &run).await, 4);
    assert_eq!(snapshot(&cluster, &run).await, before);
    let direct = Direct::on(&cluster.url).await;
    assert_eq!(direct.violations(false, &[run.parse().unwrap()]).await, []);

    let node = direct.node().await;
    let leader = direct.store.take_leadership(Duty::Maintenance, node).await.unwrap().expect("nobody leads");
    assert_eq!(direct.store.settle_closed_lanes(leader.term(), 100).await.unwrap(), 0);
    // Whoever took it back has died.
    let later = "with aged as (update lane set reopening_at = reopening_at - interval '1 minute'
                                where run_id = $1 and not is_settled returning id)
                 select count(*) from aged";
    assert_eq!(number(&cluster, later, &run).await, 1);
    assert_eq!(direct.store.settle_closed_lanes(leader.term(), 100).await.unwrap(), 4);
    assert_eq!(snapshot(&cluster, &run).await, before);
    cluster.stop().await;
}
