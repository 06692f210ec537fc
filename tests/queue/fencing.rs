//! Claims have numbers, and what comes under an old one changes nothing.

use std::time::Duration;

use runlane::domain::job::Claim;
use runlane::domain::work::AttemptEnd;
use runlane::domain::{AttemptOutcome, JobKind};
use runlane::store::{Beat, NewNode, Store};
use serde_json::json;
use uuid::Uuid;

use super::support::{assert_books_balance, attempts, jobs, quick, until_sql};
use crate::support::app::Cluster;

async fn register(store: &Store) -> Uuid {
    let id = runlane::domain::ids::new_id();
    let node = NewNode {
        id,
        name: "test".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(600)).await.unwrap();
    id
}

fn released(claim: Claim) -> AttemptEnd {
    AttemptEnd {
        holds: false,
        claim,
        outcome: AttemptOutcome::Released,
        delay: Duration::ZERO,
        error: None,
        stderr_tail: None,
        usage: None,
        cost_usd: None,
        result: None,
        suspect: false,
        alone: false,
        fingerprint: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_lost_or_given_back_keeps_its_place() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let node = register(&store).await;
    let definition = cluster.definition(3).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    let slots = [(JobKind::ProbeScenario, 1)];
    let first = store.claim_jobs(node, &slots).await.unwrap().claims()[0];
    store.end_attempts(node, &[released(first)], 5).await.unwrap();
    let again = store.claim_jobs(node, &slots).await.unwrap().claims()[0];
    assert_eq!(again, Claim { number: 2, ..first }, "given back");
    // Its node's lease has run out as soon as it begins, and nobody judges one that is longer than the server is old.
    store.renew_lease(node, Duration::ZERO).await.unwrap();
    let rescued = store.rescue_jobs(Duration::ZERO).await.unwrap();
    assert_eq!(rescued.iter().map(|r| r.claim).collect::<Vec<_>>(), [again]);
    let node = register(&store).await;
    let third = store.claim_jobs(node, &slots).await.unwrap().claims()[0];
    assert_eq!(third, Claim { number: 3, ..first }, "lost with its node");
    cluster.stop().await;
}

/// Everything that a late result could change.
async fn everything(cluster: &Cluster) -> String {
    sqlx::query_scalar(
        "select concat((select jsonb_agg(j order by j.id) from current_job j), (select jsonb_agg(l order by l.id) from lane l),
                       (select jsonb_agg(r order by r.id) from run r), (select jsonb_agg(a order by a.job_id, a.number) from attempt a),
                       (select jsonb_agg(e) from lane_error e), (select jsonb_agg(q) from queue_minute q))",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_changes_nothing_and_numbers_are_never_used_again() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let (ours, other) = (register(&store).await, register(&store).await);
    let definition = cluster.definition(1).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    let slots = [(JobKind::ProbeScenario, 5)];
    let first = store.claim_jobs(ours, &slots).await.unwrap().claims()[0];
    assert_eq!(first.number, 1);

    let before = everything(&cluster).await;
    let next = Claim { number: 2, ..first };
    assert_eq!(store.end_attempts(other, &[released(first)], 5).await.unwrap(), [], "another node's");
    assert_eq!(
        store.end_attempts(ours, &[released(next)], 5).await.unwrap(),
        [],
        "a number that was not given"
    );
    assert_eq!(everything(&cluster).await, before);

    assert_eq!(store.end_attempts(ours, &[released(first)], 5).await.unwrap().len(), 1);
    let before = everything(&cluster).await;
    assert_eq!(store.end_attempts(ours, &[released(first)], 5).await.unwrap(), [], "a second time");
    assert_eq!(everything(&cluster).await, before);

    let second = store.claim_jobs(ours, &slots).await.unwrap().claims()[0];
    assert_eq!(second, next, "the number counts claims, whatever ended the earlier ones");
    let before = everything(&cluster).await;
    assert_eq!(store.end_attempts(ours, &[released(first)], 5).await.unwrap(), [], "the earlier claim's");
    assert_eq!(everything(&cluster).await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_of_a_finished_run_starts_no_analysis_anew() {
    let cluster = Cluster::with(&quick(&[])).await;
    let definition = cluster.definition(1).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until(&run, "analysed", |s| s["analyses"][0]["status"] == "COMPLETED").await;
    let store = Store::new(cluster.db.clone());
    let node = register(&store).await;
    let before = everything(&cluster).await;
    let claim = Claim { job_id: jobs(&cluster.db, &run).await[0].id, number: 1 };
    assert_eq!(store.end_attempts(node, &[released(claim)], 5).await.unwrap(), []);
    assert_eq!(everything(&cluster).await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_lease_is_gone_stops_its_jobs_and_registers_anew() {
    let lease = [
        ("RUNLANE_LEASE_MS", "6000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "300"),
        ("RUNLANE_WORKER_CONCURRENCY", "3"),
    ];
    let mut cluster = Cluster::api_only(&quick(&lease)).await;
    let definition = cluster.definition(3).await;
    cluster.add_node(&[]).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=1500"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 3).await;
    let old: Uuid = sqlx::query_scalar("delete from node returning id").fetch_one(&cluster.db).await.unwrap();
    until_sql(&cluster.db, "registered anew", &format!("select count(*) > 0 from node where id <> '{old}'"))
        .await;
    cluster.until_status(&run, "COMPLETED").await;
    let attempts = attempts(&cluster.db).await;
    for job in jobs(&cluster.db, &run).await {
        assert_eq!(
            (job.state.as_str(), job.failures, job.claims),
            ("completed", 0, 2),
            "{job:?} {attempts:#?}"
        );
    }
    for attempt in attempts {
        assert_eq!(attempt.node_id == old, attempt.number == 1, "{attempt:?}");
        assert_eq!(attempt.outcome == "completed", attempt.number == 2, "{attempt:?}");
    }
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_lost_once_its_jobs_were_given_back() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let node = register(&store).await;
    let definition = cluster.definition(2).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    let claims = store.claim_jobs(node, &[(JobKind::ProbeScenario, 5)]).await.unwrap().claims();
    assert_eq!(store.rescue_jobs(Duration::from_millis(1)).await.unwrap(), [], "the lease holds");
    sqlx::query("update node set lease_until = clock_timestamp() - interval '1 ms'")
        .execute(&cluster.db)
        .await
        .unwrap();
    assert!(store.claim_jobs(node, &[(JobKind::ProbeScenario, 5)]).await.unwrap().claims().is_empty());
    let mut rescued: Vec<Claim> =
        store.rescue_jobs(Duration::from_millis(1)).await.unwrap().into_iter().map(|r| r.claim).collect();
    rescued.sort_by_key(|c| c.job_id);
    let mut expected = claims.clone();
    expected.sort_by_key(|c| c.job_id);
    assert_eq!(rescued, expected);
    assert_eq!(store.renew_lease(node, Duration::from_secs(6)).await.unwrap(), Beat::Lost);
    assert_eq!(
        store.end_attempts(node, &[released(claims[0])], 5).await.unwrap(),
        [],
        "its results come too late"
    );
    let all = attempts(&cluster.db).await;
    assert!(
        all.iter().all(|a| a.outcome == "lost" && a.error_code.as_deref() == Some("node_lost")),
        "{all:#?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_rescues_within_one_lease_of_the_databases_start() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let node = register(&store).await;
    sqlx::query("update node set lease_until = clock_timestamp() - interval '1 ms'")
        .execute(&cluster.db)
        .await
        .unwrap();
    store.rescue_jobs(Duration::from_secs(365 * 86_400)).await.unwrap();
    assert_eq!(
        store.renew_lease(node, Duration::from_secs(6)).await.unwrap(),
        Beat::Renewed { is_draining: false, next_end: None }
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_is_given_up_while_one_of_its_claims_is_on_its_way() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let node = register(&store).await;
    let definition = cluster.definition(1).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    // A claim that has not committed yet.
    let mut claim = cluster.db.begin().await.unwrap();
    let claimed: Vec<(Option<i64>,)> =
        sqlx::query_as("select job_id from claim_jobs($1, array['probe:scenario']::job_kind[], array[1]) where job_id is not null")
            .bind(node)
            .fetch_all(&mut *claim)
            .await
            .unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        store.renew_lease(node, Duration::from_millis(1)).await.unwrap(),
        Beat::Renewed { is_draining: false, next_end: None },
        "not held up"
    );
    until_sql(&cluster.db, "run out", "select bool_and(lease_until < clock_timestamp()) from node").await;
    assert_eq!(store.rescue_jobs(Duration::from_millis(1)).await.unwrap(), []);
    let nodes: i64 = sqlx::query_scalar("select count(*) from node").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(nodes, 1, "it is kept for its claim");
    claim.commit().await.unwrap();
    assert_eq!(
        store.rescue_jobs(Duration::from_millis(1)).await.unwrap().len(),
        1,
        "and then its job comes back"
    );
    cluster.stop().await;
}
