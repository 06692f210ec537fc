//! The node's own writes when their answers are lost.

use std::time::Duration;

use runlane::domain::JobKind;
use runlane::store::{NewNode, Store};
use serde_json::json;

use super::support::{PATIENT, assert_exact, harms, metric, number};
use crate::support::app::Cluster;
use crate::support::proxy::{Harm, Point, Proxy, Strike, work};

/// How often each harm comes; silence, which takes its time, comes once.
const TIMES: u32 = 3;

async fn completes_once_behind(work: &'static str) -> (Cluster, Proxy) {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(24).await;
    let mut runs = 0;
    for harm in harms(work) {
        let times = if harm.is_silent() { 1 } else { TIMES };
        let struck = proxy.strike(harm.times(times));
        while struck.count() < times {
            let run = cluster.run(&definition, &["mock/echo?delayMs=1"], json!({})).await;
            cluster.until_status(&run, "COMPLETED").await;
            runs += 1;
        }
    }
    let probes = "select count(*) from attempt a join current_job j on j.id = a.job_id where j.scenario_id is not null";
    assert_eq!(number(&cluster.db, probes).await, runs * 24, "no claim was lost, none was made twice");
    assert_eq!(number(&cluster.db, "select count(*) from attempt where outcome <> 'completed'").await, 0);
    assert_exact(&cluster.db).await;
    (cluster, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_claim_whose_answer_is_lost_are_run_without_waiting_for_the_lease() {
    let (cluster, _proxy) = completes_once_behind(work::CLAIM).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_unknown_claims_are_looked_for_is_not_run_again() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(600).await;
    let struck = proxy.strike(Strike::at(Point::Commit(work::CLAIM)).after(Harm::Cut).times(12));
    let run = cluster.run(&definition, &["mock/echo", "mock/echo?delayMs=1"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    assert!(struck.count() > 0);
    // A job that is begun twice leaves one attempt, a late result, and a bill.
    assert_eq!(metric(&cluster, "runlane_results_late_total").await, 0.0);
    let claimed = "runlane_jobs_claimed_total{kind=\"probe:scenario\"";
    let probes = number(
        &cluster.db,
        "select count(*) from attempt where job_id in (select id from current_job where scenario_id is not null)",
    )
    .await;
    assert_eq!(metric(&cluster, claimed).await, probes as f64);
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_whose_answer_is_lost_are_done_and_not_late() {
    let (cluster, _proxy) = completes_once_behind(work::END).await;
    assert!(metric(&cluster, "runlane_results_late_total").await == 0.0);
    let ended = number(&cluster.db, "select count(*) from attempt").await;
    assert!(metric(&cluster, "runlane_attempts_ended_total").await == ended as f64);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_gives_back_what_it_has_claimed_without_knowing() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(3).await;
    let struck = proxy.strike(Strike::at(Point::Commit(work::CLAIM)).after(Harm::Cut).times(u32::MAX));
    let run = cluster.run(&definition, &["mock/echo?hang=1"], json!({})).await;
    cluster.until(&run, "claimed", |s| s["progress"]["active"] == 3).await;
    // It has not come to reading back what it may have claimed.
    let db = cluster.db.clone();
    cluster.stop().await;
    assert!(struck.count() > 0);
    assert_eq!(number(&db, "select count(*) from current_job where state = 'active'").await, 0);
    assert_eq!(number(&db, "select count(*) from attempt where outcome = 'released'").await, 3);
    assert_eq!(number(&db, "select count(*) from node").await, 0, "it has signed off");
    assert_exact(&db).await;
}

/// Waits until the lease is renewed.
async fn renewed(cluster: &Cluster) {
    let lease = async || -> Option<chrono::DateTime<chrono::Utc>> {
        sqlx::query_scalar("select max(lease_until) from node").fetch_one(&cluster.db).await.unwrap()
    };
    let before = lease().await;
    while lease().await == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_renewal_costs_no_lease() {
    let settings = [("RUNLANE_LEASE_MS", "6000"), ("RUNLANE_LEASE_RENEWAL_MS", "1000")];
    let (cluster, proxy) = Cluster::behind_proxy(&settings).await;
    let registered = "select count(distinct node_id) from (select id as node_id from node union select node_id from attempt) n";
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo?hang=1"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 1).await;
    for harm in harms(work::HEARTBEAT) {
        proxy.strike(harm).struck(1).await;
        // The struck one may have renewed it as well; of two, one was heard.
        for _ in 0..2 {
            renewed(&cluster).await;
        }
    }
    assert_eq!(number(&cluster.db, registered).await, 1, "it is the same node still");
    assert_eq!(
        number(&cluster.db, "select count(*) from current_job where state = 'active' and claims = 1").await,
        1
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_whose_answer_is_lost_happens_once() {
    let settings = [("RUNLANE_LEASE_MS", "3000"), ("RUNLANE_LEASE_RENEWAL_MS", "300")];
    let (cluster, proxy) = Cluster::behind_proxy(&settings).await;
    let definition = cluster.definition(4).await;
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let unheard = proxy.strike(Strike::at(Point::Commit(work::RESCUE)).after(Harm::Cut).times(u32::MAX));
    // A node that claims and is never heard of again. The one that lives finds nothing to claim: the queue is paused
    // again in the same breath.
    let store = Store::new(cluster.db.clone());
    let dead = runlane::domain::ids::new_id();
    let node = NewNode {
        id: dead,
        name: "dead".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(1)).await.unwrap();
    sqlx::query("update queue_state set is_paused = false, paused_at = null, paused_by = null")
        .execute(&cluster.db)
        .await
        .unwrap();
    let claimed = store.claim_jobs(dead, &[(JobKind::ProbeScenario, 4)]).await.unwrap();
    let claimed = i64::try_from(claimed.claims().len()).unwrap();
    cluster.until(&run, "rescued", |s| s["progress"]["active"] == 0 || s["status"] == "COMPLETED").await;
    unheard.struck(1).await;
    cluster.until_status(&run, "COMPLETED").await;
    proxy.calm();
    assert_eq!(number(&cluster.db, "select coalesce(sum(losses), 0) from current_job").await, claimed);
    assert_eq!(number(&cluster.db, "select count(*) from attempt where outcome = 'lost'").await, claimed);
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}
