//! Very many slots are not spread over as many lanes: each of them gets a quantum of them.

use std::collections::BTreeMap;

use runlane::domain::JobKind;

use crate::support::app::fresh_database;
use crate::support::direct::Direct;

const PROBE: JobKind = JobKind::ProbeScenario;

/// How many jobs of each lane are active, by run.
async fn active(queue: &Direct) -> BTreeMap<String, Vec<i32>> {
    let lanes: Vec<(String, i32)> =
        sqlx::query_as("select run_id::text, active from lane where kind = 'probe:scenario'")
            .fetch_all(&queue.db)
            .await
            .unwrap();
    let mut runs = BTreeMap::<String, Vec<i32>>::new();
    for (run, active) in lanes {
        runs.entry(run).or_default().push(active);
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_never_further_apart_than_a_quantum() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(8).await;
    for _ in 0..20 {
        queue.start(definition, &["mock/echo", "mock/echo?a=1"], None).await;
    }
    let node = queue.node().await;
    // 96 slots have a quantum of 3.
    for (total, fewest, most_of_a_lane) in [(96, 3, 3), (192, 9, 6)] {
        assert_eq!(queue.claim(node, PROBE, 96).await.len(), 96);
        let runs = active(&queue).await;
        let lanes: Vec<i32> = runs.values().flatten().copied().collect();
        assert!(lanes.iter().all(|n| n % 3 == 0 && *n <= most_of_a_lane), "{total}: {runs:?}");
        let sums: Vec<i32> = runs.values().map(|lanes| lanes.iter().sum()).collect();
        assert_eq!(sums.iter().sum::<i32>(), total);
        assert_eq!(sums.iter().min(), Some(&fewest), "{total}: {runs:?}");
        assert!(sums.iter().all(|n| n - fewest <= 3), "{total}: {runs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_slots_go_one_by_one() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(8).await;
    for _ in 0..20 {
        queue.start(definition, &["mock/echo"], None).await;
    }
    let node = queue.node().await;
    assert_eq!(queue.claim(node, PROBE, 63).await.len(), 63);
    let runs = active(&queue).await;
    assert!(runs.values().flatten().all(|n| (3..=4).contains(n)), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_have_less_than_a_quantum_leave_no_slot_free() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(1).await;
    for _ in 0..130 {
        queue.start(definition, &["mock/echo"], None).await;
    }
    let node = queue.node().await;
    assert_eq!(queue.claim(node, PROBE, 128).await.len(), 128);
}

#[tokio::test(flavor = "multi_thread")]
async fn ceilings_leave_no_slot_free_while_others_wait() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(3).await;
    for _ in 0..140 {
        queue.start(definition, &["mock/echo", "mock/echo?a=1"], Some(1)).await;
    }
    let node = queue.node().await;
    assert_eq!(queue.claim(node, PROBE, 140).await.len(), 140);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_many_short_lanes_keeps_up_with_runs_of_long_ones() {
    let queue = Direct::on(&fresh_database().await).await;
    let (one, many) = (queue.definition(1).await, queue.definition(200).await);
    let models: Vec<String> = (0..60).map(|i| format!("mock/echo?a={i}")).collect();
    let short = queue.start(one, &models.iter().map(String::as_str).collect::<Vec<_>>(), None).await;
    for _ in 0..80 {
        queue.start(many, &["mock/echo"], None).await;
    }
    let node = queue.node().await;
    // A quantum of 8 of 256 slots: a lane of one job takes no more of its run's share than one.
    for _ in 0..12 {
        assert_eq!(queue.claim(node, PROBE, 256).await.len(), 256);
        let mut runs = active(&queue).await;
        let ours: i32 = runs.remove(&short.to_string()).unwrap().iter().sum();
        let least = runs.values().map(|lanes| lanes.iter().sum::<i32>()).min().unwrap();
        assert!((ours - least).abs() <= 8, "{ours} of the run of short lanes, {least} of another");
    }
}
