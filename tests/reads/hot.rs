//! What runs all the time reads a few entries of its index, however many jobs there are: progress, the queue's status, claims,
//! what is active, and ends.

use std::sync::Mutex;
use std::time::Duration;

use runlane::domain::filter::JobFilter;
use runlane::domain::job::Claim;
use runlane::domain::page::PageRequest;
use runlane::domain::work::AttemptEnd;
use runlane::domain::{AttemptOutcome, JobKind, JobState, ids};
use runlane::store::{Contexts, NewNode, Store};
use sqlx::PgPool;
use uuid::Uuid;

use super::explain::uses;
use crate::support::direct::end;

/// Jobs of one claim.
const BATCH: u32 = 20;
/// Lanes in which something waits are few; their entries and those of a batch, each looked at a few times.
const ENTRIES_MAX: i64 = 400;

/// Reads the run's progress, then claims some of its jobs, looks at them, and ends them.
pub(super) async fn moves(pool: &PgPool, store: &Store, run: Uuid) {
    uses("progress", pool, "lane_identity", ENTRIES_MAX, || async {
        assert!(store.run(run).await.unwrap().is_some());
    })
    .await;
    uses("the queue's status", pool, "lane_live", ENTRIES_MAX, || async {
        store.queue_status().await.unwrap();
    })
    .await;

    let node = NewNode {
        id: ids::new_id(),
        name: "reads".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(3_600)).await.unwrap();
    let claimed: Mutex<Vec<Vec<Claim>>> = Mutex::default();
    uses("claims", pool, "waiting_job_due", ENTRIES_MAX, || async {
        let claims = store.claim_jobs(node.id, &[(JobKind::ProbeScenario, BATCH)]).await.unwrap().claims();
        assert_eq!(claims.len(), BATCH as usize);
        claimed.lock().unwrap().push(claims);
    })
    .await;
    let batches = claimed.into_inner().unwrap();
    let active: usize = batches.iter().map(Vec::len).sum();
    uses("claimed work", pool, "job_pkey", ENTRIES_MAX, || async {
        let mut contexts = Contexts::default();
        assert_eq!(store.work(node.id, &batches[0], &mut contexts).await.unwrap().len(), BATCH as usize);
    })
    .await;
    uses("what a node has", pool, "job_pkey", ENTRIES_MAX, || async {
        assert_eq!(store.claims_of(node.id).await.unwrap().len(), active);
    })
    .await;
    let filter = JobFilter { states: Some(vec![JobState::Active]), ..JobFilter::default() };
    let page = PageRequest { limit: 50, after: None, count: true };
    // Every lane that has active jobs looks at all of them.
    uses("active jobs", pool, "job_pkey", 3 * ENTRIES_MAX, || async {
        let jobs = store.run_jobs(run, &filter, &page).await.unwrap();
        assert_eq!((jobs.items.len(), jobs.total), (50, i64::try_from(active).ok()));
    })
    .await;

    let batches = Mutex::new(batches);
    uses("ends", pool, "job_pkey", ENTRIES_MAX, || async {
        let claims = batches.lock().unwrap().pop().unwrap();
        let ends: Vec<AttemptEnd> = claims
            .into_iter()
            .map(|claim| end(claim, JobKind::ProbeScenario, AttemptOutcome::Completed))
            .collect();
        assert_eq!(store.end_attempts(node.id, &ends, i32::MAX).await.unwrap().len(), BATCH as usize);
    })
    .await;

    // One that ends alone looks at its run: whether it has seen all there is.
    uses("ends of analyses", pool, "job_identity", ENTRIES_MAX, || async {
        sqlx::query("select start_analysis($1, 'analyze:basic')").bind(run).execute(pool).await.unwrap();
        let claims = store.claim_jobs(node.id, &[(JobKind::AnalyzeBasic, 1)]).await.unwrap().claims();
        let ends = [end(claims[0], JobKind::AnalyzeBasic, AttemptOutcome::Completed)];
        assert_eq!(store.end_attempts(node.id, &ends, i32::MAX).await.unwrap().len(), 1);
    })
    .await;
}
