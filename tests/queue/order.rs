//! Who gets a free slot.

use std::time::Duration;

use runlane::domain::JobKind;
use runlane::store::RunChange;
use serde_json::json;

use super::support::{attempts, quick, until_sql};
use crate::support::app::{Cluster, fresh_database};
use crate::support::direct::Direct;

#[tokio::test(flavor = "multi_thread")]
async fn high_is_claimed_before_normal_before_low() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let definition = cluster.definition(4).await;
    let mut runs = Vec::new();
    for priority in ["LOW", "NORMAL", "HIGH"] {
        runs.push(cluster.run(&definition, &["mock/echo"], json!({ "priority": priority })).await);
    }
    cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "1")]).await;
    for run in &runs {
        cluster.until_status(run, "COMPLETED").await;
    }
    let order: Vec<String> = attempts(&cluster.db).await.iter().map(|a| a.run_id.to_string()).collect();
    let expected: Vec<String> = [2, 1, 0].iter().flat_map(|&i| vec![runs[i].clone(); 4]).collect();
    assert_eq!(order, expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_gets_every_slot_however_many_others_wait() {
    let queue = Direct::on(&fresh_database().await).await;
    let (large, small) = (queue.definition(100).await, queue.definition(1).await);
    let node = queue.node().await;
    let mut urgent = Vec::new();
    for definition in [small, large, small] {
        urgent.push(queue.start(definition, &["mock/echo"], None).await);
    }
    for run in &urgent {
        queue.force(*run, RunChange::SetPriority(9)).await;
    }
    for _ in 0..20 {
        queue.start(large, &["mock/echo"], None).await;
    }
    // As a node does it: again at once while it is told that there is more. 15 slots go one by one, 70 in quanta.
    for (slots, active) in [(15, 15), (70, 85), (40, 102)] {
        let (mut got, mut is_told, mut claims) = (0, true, 0);
        while got < slots && is_told {
            claims += 1;
            let free = u32::try_from(slots - got).unwrap();
            let claimed = queue.store.claim_jobs(node, &[(JobKind::ProbeScenario, free)]).await.unwrap();
            is_told = claimed.look_after == Some(Duration::ZERO);
            got += claimed.claims().len();
        }
        assert_eq!(got, slots);
        assert!(claims <= 2, "{slots} slots took {claims} claims");
        let urgent = "select sum(active) from lane where priority = 9 and kind = 'probe:scenario'";
        let urgent: i64 = sqlx::query_scalar(urgent).fetch_one(&queue.db).await.unwrap();
        assert_eq!(urgent, active, "of {slots} slots");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_wait_for_their_time_stand_in_nobodys_way() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(1).await;
    for _ in 0..40 {
        queue.start(definition, &["mock/echo"], None).await;
    }
    sqlx::query("update job set run_at = run_at + interval '1 hour'").execute(&queue.db).await.unwrap();
    queue.start(definition, &["mock/echo"], None).await;
    let node = queue.node().await;
    assert_eq!(queue.claim(node, JobKind::ProbeScenario, 4).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_ten_and_one_of_ten_thousand_share_slots_evenly() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let (few, many) = (cluster.definition(10).await, cluster.definition(10_000).await);
    let large = cluster.run(&many, &["mock/echo?delayMs=40"], json!({})).await;
    let small = cluster.run(&few, &["mock/echo?delayMs=40"], json!({})).await;
    cluster.add_node(&[]).await;
    cluster.until_status(&small, "COMPLETED").await;
    cluster.admin("mutation($id: ID!) { cancelRun(id: $id) { id } }", json!({ "id": large })).await;
    cluster.until(&large, "idle", |s| s["progress"]["active"] == 0).await;
    let attempts = attempts(&cluster.db).await;
    let claims: Vec<bool> = attempts.iter().map(|a| a.run_id.to_string() == small).collect();
    assert_eq!(claims[..8].iter().filter(|&&s| s).count(), 4, "the first eight slots: half for each");
    // While both have waiting jobs, a claim leaves neither with more slots than the other by more than a batch.
    let last = claims.iter().rposition(|&s| s).unwrap();
    // Twenty claims give each ten; the tolerance is one claim of all eight slots.
    assert!(last < 20 + 8, "the small run's ten jobs are among the first twenty-eight: the last is {last}");
    // The claim that takes the small run's last jobs gives the rest of the slots to the other, however many they are.
    let both_wait = attempts[..last].iter().take_while(|a| a.started_at < attempts[last].started_at);
    for (i, claim) in both_wait.enumerate().filter(|(i, _)| *i >= 8) {
        let active = |small_one: bool| {
            attempts
                .iter()
                .zip(&claims)
                .filter(|&(a, &s)| {
                    s == small_one && a.started_at <= claim.started_at && a.ended_at > claim.started_at
                })
                .count()
        };
        let (ours, theirs) = (active(true), active(false));
        assert!(ours.abs_diff(theirs) <= 4, "claim {i}: {ours} and {theirs}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_of_a_run_share_its_slots_evenly() {
    let mut cluster = Cluster::api_only(&quick(&[])).await;
    let definition = cluster.definition(30).await;
    let models = ["mock/echo?delayMs=600000", "mock/echo?delayMs=600000&a=1", "mock/echo?delayMs=600000&a=2"];
    let run = cluster.run(&definition, &models, json!({})).await;
    for (slots, total, least, most) in [("6", 6, 2, 2), ("5", 11, 3, 4), ("4", 15, 5, 5)] {
        cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", slots)]).await;
        let state = cluster.until(&run, "all slots in use", |s| s["progress"]["active"] == total).await;
        for model in state["progress"]["byModel"].as_array().unwrap() {
            let active = model["active"].as_i64().unwrap();
            assert!((least..=most).contains(&active), "of {total}: {state:#}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_free_slot_is_used_though_most_lanes_have_little() {
    let poll = ("RUNLANE_POLL_INTERVAL_MS", "600000");
    let mut cluster = Cluster::api_only(&quick(&[poll])).await;
    let (one, many) = (cluster.definition(1).await, cluster.definition(60).await);
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "40")]).await;
    for _ in 0..3 {
        cluster.run(&one, &["mock/echo?delayMs=600000"], json!({})).await;
    }
    let waits = cluster.run(&many, &["mock/echo", "mock/echo?a=1"], json!({})).await;
    sqlx::query("update job set run_at = now() + interval '1 hour' where lane_id in (select id from lane where run_id = $1::uuid)")
        .bind(&waits)
        .execute(&cluster.db)
        .await
        .unwrap();
    cluster.run(&many, &["mock/echo?delayMs=600000"], json!({})).await;
    // One notification, so one look, unless the node knows that there is more.
    cluster.admin("mutation { resumeQueue { isPaused } }", json!({})).await.data();
    until_sql(&cluster.db, "every slot in use", "select sum(active) = 40 from lane").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_probes_never_delay_an_analysis() {
    let cluster = Cluster::with(&quick(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "3")])).await;
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.until(&run, "busy", |s| s["progress"]["active"] == 3).await;
    let start = "mutation($id: ID!) { startAnalysis(runId: $id, kind: BASIC) { id } }";
    cluster.user(start, json!({ "id": run })).await.data();
    let state = cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    assert_eq!(state["progress"]["active"], 3, "the probes still hold every slot of theirs");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_concurrency_is_reached_and_kept_by_four_nodes_together() {
    // No poll helps: a ceiling that has room again must be noticed by itself.
    let mut cluster = Cluster::api_only(&quick(&[("RUNLANE_POLL_INTERVAL_MS", "600000")])).await;
    let definition = cluster.definition(40).await;
    let models = ["mock/echo?delayMs=30", "mock/echo?delayMs=30&a=1"];
    for _ in 0..4 {
        cluster.add_node(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "4")]).await;
    }
    let run = cluster.run(&definition, &models, json!({ "maxConcurrency": 5 })).await;
    let mut most = 0;
    loop {
        let (active, open): (i64, i64) = sqlx::query_as(
            "select coalesce(sum(active), 0), coalesce(sum(pending + active), 0) from lane
              where run_id = $1::uuid and kind = 'probe:scenario'",
        )
        .bind(&run)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        assert!(active <= 5, "{active} are active");
        most = most.max(active);
        if open == 0 {
            break;
        }
    }
    assert_eq!(most, 5);
    let attempts = attempts(&cluster.db).await;
    for claim in &attempts {
        let at_once = attempts
            .iter()
            .filter(|a| a.started_at <= claim.started_at && a.ended_at > claim.started_at)
            .count();
        assert!(at_once <= 5, "{at_once} at {}", claim.started_at);
    }
    cluster.stop().await;
}
