//! What runs all the time reads a few entries of its index, however many jobs there are: progress, the queue's status, claims,
//! what is active, and ends.

use std::sync::Mutex;
use std::time::Duration;

use runlane::domain::filter::JobFilter;
use runlane::domain::job::Claim;
use runlane::domain::page::PageRequest;
use runlane::domain::work::{AttemptEnd, AttemptResult};
use runlane::domain::{AttemptOutcome, JobKind, JobState, ids};
use runlane::store::{Contexts, NewNode, Store};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;
use uuid::Uuid;

use super::explain::{EXECUTIONS, keeps_its_plan, uses};
use crate::support::direct::end;

/// Jobs of one claim.
const BATCH: u32 = 20;
/// Lanes in which something waits are few; their entries and those of a batch, each looked at a few times.
const ENTRIES_MAX: i64 = 400;
/// Of a node's claims and of live lanes, so many that whoever reads them all is told.
const CROWD: i32 = 1_600;

/// Reads the run's progress, then claims some of its jobs, looks at them, and ends them.
pub(super) async fn moves(pool: &PgPool, store: &Store, run: Uuid) {
    uses("progress", pool, "lane_identity", ENTRIES_MAX, || async {
        assert!(store.run(run).await.unwrap().is_some());
    })
    .await;
    keeps_its_plan("progress", pool, "with page as (select unnest(").await;
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
    let claimed: Mutex<Vec<(Vec<Claim>, i64)>> = Mutex::default();
    uses("claims", pool, "waiting_job_due", ENTRIES_MAX, || async {
        let brought = store.claim_jobs(node.id, &[(JobKind::ProbeScenario, BATCH)]).await.unwrap();
        assert_eq!(brought.claims().len(), BATCH as usize);
        claimed.lock().unwrap().push((brought.claims(), brought.taken_in.unwrap()));
    })
    .await;
    let batches = claimed.into_inner().unwrap();
    let active: usize = batches.iter().map(|(claims, _)| claims.len()).sum();
    uses("claimed work", pool, "job_pkey", ENTRIES_MAX, || async {
        let mut contexts = Contexts::default();
        assert_eq!(store.work(node.id, &batches[0].0, &mut contexts).await.unwrap().len(), BATCH as usize);
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

    first_claims(pool, store, node.id).await;
    // One that ends alone looks at its run: whether it has seen all there is.
    uses("ends of analyses", pool, "job_identity", ENTRIES_MAX, || async {
        sqlx::query("select start_analysis($1, 'analyze:basic')").bind(run).execute(pool).await.unwrap();
        let brought = store.claim_jobs(node.id, &[(JobKind::AnalyzeBasic, 1)]).await.unwrap();
        let ends = [end(brought.claims()[0], JobKind::AnalyzeBasic, AttemptOutcome::Completed)];
        let taken_in = [brought.taken_in.unwrap()];
        assert_eq!(store.end_attempts_in(node.id, &ends, Some(&taken_in), i32::MAX).await.unwrap().len(), 1);
    })
    .await;
    confirmed_analyses(pool, store, node.id, run).await;
    super::ruled::sweeps(pool, store, node.id).await;
    super::ruled::moves(pool, store, node.id).await;

    // Last: lanes in which nothing is left to claim or end are in the way of claims.
    crowd(pool, node.id).await;
    let before = scans_of_claims(pool).await;
    let batches = Mutex::new(batches);
    uses("ends", pool, "job_pkey", ENTRIES_MAX, || async {
        let (claims, taken_in) = batches.lock().unwrap().pop().unwrap();
        let ends: Vec<AttemptEnd> = claims
            .into_iter()
            .map(|claim| end(claim, JobKind::ProbeScenario, AttemptOutcome::Completed))
            .collect();
        let ended = store.end_attempts_in(node.id, &ends, Some(&[taken_in]), i32::MAX).await.unwrap();
        assert_eq!(ended.len(), BATCH as usize);
    })
    .await;

    assert_eq!(scans_of_claims(pool).await, before, "an end reads all that nodes have");
    let closed = settled_run(pool).await;
    uses("what may be archived", pool, "lane_identity", ENTRIES_MAX, || async {
        let lane: i64 = sqlx::query_scalar(
            "select a.id from archivable_lanes('0') a join lane l on l.id = a.id
              where a.id = (select x.id from lane x where x.run_id = $1 and x.kind = 'probe:scenario')",
        )
        .bind(closed)
        .fetch_one(pool)
        .await
        .unwrap();
        assert!(lane > 0);
    })
    .await;
}

/// From a lane that nobody has claimed from: its run comes with it.
async fn first_claims(pool: &PgPool, store: &Store, node: Uuid) {
    // Of a higher priority than what waits otherwise, so that each claim takes one of these.
    let jobs = sqlx::query(
        "with fresh as (
            insert into job (lane_id, scenario_id, run_at, is_fresh)
            select l.id, (select min(s.id) from scenario s), now(), true
              from lane l
             where l.is_live and l.position = 0 and l.total = 1 and l.kind = 'probe:scenario'
             order by l.id limit $1
            returning id, lane_id
         )
         update lane l
            set priority = 9, fresh = 1, fresh_after = f.id - 1, fresh_until = f.id, fresh_at = now()
           from fresh f where l.id = f.lane_id",
    )
    .bind(EXECUTIONS)
    .execute(pool)
    .await
    .unwrap();
    assert_eq!(i64::try_from(jobs.rows_affected()), Ok(EXECUTIONS));
    // What a claim calls may have been planned for somebody else on this connection, with other settings.
    sqlx::query("discard plans").execute(pool).await.unwrap();
    uses("first claims", pool, "run_pkey", ENTRIES_MAX, || async {
        let brought = store.claim_jobs(node, &[(JobKind::ProbeScenario, 1)]).await.unwrap();
        assert_eq!((brought.first.len(), brought.shared.len()), (1, 1));
    })
    .await;
}

/// Of an analysis that found nothing new, its stored result is marked.
async fn confirmed_analyses(pool: &PgPool, store: &Store, node: Uuid, run: Uuid) {
    sqlx::query(
        "insert into analysis (run_id, kind, job_id, result, coverage, warnings, computed_at)
         select r.id, 'analyze:basic', 0, '{}', '{}', '{}', now() from run r where r.id <> $1",
    )
    .bind(run)
    .execute(pool)
    .await
    .unwrap();
    uses("ends of analyses that found nothing new", pool, "analysis_pkey", ENTRIES_MAX, || async {
        sqlx::query("select start_analysis($1, 'analyze:basic')").bind(run).execute(pool).await.unwrap();
        let brought = store.claim_jobs(node, &[(JobKind::AnalyzeBasic, 1)]).await.unwrap();
        let mut found = end(brought.claims()[0], JobKind::AnalyzeBasic, AttemptOutcome::Completed);
        let unchanged = RawValue::from_string(json!({ "unchanged": true }).to_string()).unwrap();
        found.result = Some(AttemptResult::Analysis(unchanged));
        let taken_in = [brought.taken_in.unwrap()];
        assert_eq!(store.end_attempts_in(node, &[found], Some(&taken_in), i32::MAX).await.unwrap().len(), 1);
    })
    .await;
}

/// Much else that the node has, and many lanes in which something runs.
async fn crowd(pool: &PgPool, node: Uuid) {
    sqlx::query(
        "with held as (
            insert into claim (node_id, claimed_at, jobs, lanes, unended)
            select $1, now(), '{}', '{}', 1 from generate_series(1, $2)
         )
         insert into lane (run_id, kind, model, position, priority, is_live, total, pending, active)
         select md5('r400')::uuid, 'probe:scenario', 'mock/' || n, n, 5, true, 1, 0, 1 from generate_series(1, $2) n",
    )
    .bind(node)
    .bind(CROWD)
    .execute(pool)
    .await
    .unwrap();
}

/// How often the table was read as a whole.
async fn scans_of_claims(pool: &PgPool) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query_scalar("select seq_scan from pg_stat_user_tables where relname = 'claim'")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// A run of which everything has ended.
async fn settled_run(pool: &PgPool) -> Uuid {
    sqlx::query_scalar(
        "select run_id from lane where not is_live and kind = 'probe:scenario' and not is_archived limit 1",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}
