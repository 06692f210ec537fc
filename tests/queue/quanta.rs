//! Very many slots are not spread over as many lanes: each of them gets a quantum of them.

use std::collections::BTreeMap;
use std::time::Duration;

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
async fn runs_that_may_not_have_a_quantum_are_made_up_for_at_once() {
    let queue = Direct::on(&fresh_database().await).await;
    let definition = queue.definition(3).await;
    for _ in 0..140 {
        queue.start(definition, &["mock/echo"], Some(1)).await;
    }
    let node = queue.node().await;
    // What the first lanes have would be enough, but for their ceilings.
    let first = queue.store.claim_jobs(node, &[(PROBE, 128)]).await.unwrap();
    let got = first.claims().len();
    assert!(got < 128, "nothing had to be made up for");
    assert_eq!(first.look_after, Some(Duration::ZERO));
    assert_eq!(queue.claim(node, PROBE, 128 - u32::try_from(got).unwrap()).await.len(), 128 - got);
}
