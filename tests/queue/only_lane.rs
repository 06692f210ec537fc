//! Where one lane alone has something to claim, slots are not shared out: what it gets, and when it is worth looking again,
//! must be the same as if they were.

use std::time::Duration;

use runlane::domain::JobKind;
use runlane::domain::job::Claim;
use uuid::Uuid;

use crate::support::app::fresh_database;
use crate::support::direct::Direct;

/// A run of one lane with so many jobs, and a node.
async fn queue(jobs: usize, max_concurrency: Option<i32>) -> (Direct, Uuid, Uuid) {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(jobs).await;
    let run = direct.start(definition, &["mock/echo"], max_concurrency).await;
    let node = direct.node().await;
    (direct, node, run)
}

impl Direct {
    /// What a claim of probes brings, and when to look again.
    async fn look(&self, node: Uuid, slots: u32) -> (Vec<Claim>, Option<Duration>) {
        let slots = [(JobKind::ProbeScenario, slots), (JobKind::AnalyzeBasic, 1)];
        let claimed = self.store.claim_jobs(node, &slots).await.unwrap();
        (claimed.claims(), claimed.look_after)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fills_the_slots_and_then_the_rest_is_taken() {
    let (direct, node, run) = queue(5, None).await;
    let (claims, look_after) = direct.look(node, 3).await;
    assert_eq!((claims.len(), look_after), (3, None));
    let (claims, look_after) = direct.look(node, 3).await;
    assert_eq!((claims.len(), look_after), (2, None), "nothing more is known to come");
    assert_eq!(direct.look(node, 3).await, (vec![], None));
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_ceiling_is_kept_and_nobody_looks_again_at_once() {
    let (direct, node, run) = queue(3, Some(2)).await;
    let (claims, look_after) = direct.look(node, 3).await;
    assert_eq!((claims.len(), look_after), (2, None));
    assert_eq!(direct.look(node, 3).await, (vec![], None));
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_time_is_left_and_the_time_is_told() {
    let (direct, node, run) = queue(3, None).await;
    let later: i64 = sqlx::query_scalar(
        "update job set run_at = clock_timestamp() + interval '1 hour' where id = (select max(id) from job) returning id",
    )
    .fetch_one(&direct.db)
    .await
    .unwrap();
    let (claims, look_after) = direct.look(node, 3).await;
    assert!(claims.len() == 2 && claims.iter().all(|c| c.job_id != later), "{claims:?}");
    let look_after = look_after.unwrap();
    assert!(
        look_after > Duration::from_secs(3_500) && look_after < Duration::from_secs(3_601),
        "{look_after:?}"
    );
    let (claims, look_after) = direct.look(node, 3).await;
    assert!(claims.is_empty() && look_after > Some(Duration::from_secs(3_500)), "{claims:?} {look_after:?}");
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_left_to_nodes_that_serve_its_provider() {
    let (direct, node, run) = queue(1, None).await;
    let slots = [(JobKind::ProbeScenario, 3)];
    let without = direct.store.claim_jobs_without(node, &slots, &["mock".into()]).await.unwrap();
    assert_eq!((without.claims(), without.look_after), (vec![], None));
    assert_eq!(direct.look(node, 3).await.0.len(), 1);
    assert_eq!(direct.violations(false, &[run]).await, []);
}
