//! Claims and ends read no more because there is a rule to be kept: a limit on a provider, a limit on spending, a guard of
//! the run, a count of crashes. And the looks for what takes too long read what is under way only.

use std::sync::Mutex;

use runlane::domain::crash::{Cause, Fingerprint};
use runlane::domain::job::Claim;
use runlane::domain::leader::Duty;
use runlane::domain::staleness::{Action, Stage, Threshold};
use runlane::domain::work::AttemptEnd;
use runlane::domain::{AttemptOutcome, JobKind};
use runlane::store::{Store, Sweep};
use sqlx::PgPool;
use uuid::Uuid;

use super::explain::uses;
use crate::support::direct::end;

/// Jobs of one claim.
const BATCH: u32 = 20;
/// Entries of a batch and of the live lanes, each looked at a few times.
const ENTRIES_MAX: i64 = 1_000;

/// Claims and ends jobs under each of the rules, beside 20,000 runs and 200,000 jobs.
pub(super) async fn moves(pool: &PgPool, store: &Store, node: Uuid) {
    newest_run(pool).await;
    // Plans are made as a program makes them that has only ever claimed and ended.
    sqlx::query("discard plans").execute(pool).await.unwrap();
    for (what, outcome) in [
        ("a crash", AttemptOutcome::Lost),
        ("a failure", AttemptOutcome::Failed),
        ("success", AttemptOutcome::Completed),
    ] {
        let claimed: Mutex<Vec<(Vec<Claim>, i64)>> = Mutex::default();
        uses("claims under limits", pool, "waiting_job_due", ENTRIES_MAX, || async {
            // Of analyses none waits, so those slots stay free.
            let slots = [(JobKind::ProbeScenario, BATCH), (JobKind::AnalyzeBasic, 1)];
            let brought = store.claim_jobs(node, &slots).await.unwrap();
            assert_eq!(brought.claims().len(), BATCH as usize);
            claimed.lock().unwrap().push((brought.claims(), brought.taken_in.unwrap()));
        })
        .await;
        uses(&format!("ends by {what} in a guarded run"), pool, "job_pkey", ENTRIES_MAX, || async {
            let (claims, taken_in) = claimed.lock().unwrap().pop().unwrap();
            let ends: Vec<AttemptEnd> = claims.into_iter().map(|claim| ended(claim, outcome)).collect();
            // The first crash holds the lane, until somebody releases it.
            let ended = store.end_attempts_in(node, &ends, Some(&[taken_in]), 1).await.unwrap();
            assert_eq!(ended.len(), BATCH as usize);
            let held = release_lanes(pool).await;
            assert_eq!(held > 0, outcome == AttemptOutcome::Lost, "{held} lanes were held");
        })
        .await;
    }
}

/// The looks for what takes too long, each minute: of the runs, only those that are under way.
pub(super) async fn sweeps(pool: &PgPool, store: &Store, node: Uuid) {
    let leadership = store.take_leadership(Duty::Staleness, node).await.unwrap().unwrap();
    let threshold = |stage, kind| Threshold {
        stage,
        kind,
        threshold_ms: 86_400_000,
        warn_percent: 80,
        action: Action::Report,
    };
    let probes = Some(JobKind::ProbeScenario);
    let thresholds = [
        threshold(Stage::Waiting, probes),
        threshold(Stage::WaitingForRetry, probes),
        threshold(Stage::InProcess, probes),
        threshold(Stage::Run, None),
    ];
    store.set_staleness_thresholds(Some(leadership.term()), &thresholds).await.unwrap();
    for (sweep, index) in [
        (Sweep::Waiting, "lane_live"),
        (Sweep::Active { requeues_max: 1, delay_ms: 1 }, "lane_live"),
        (Sweep::Runs, "run_under_way"),
    ] {
        uses(&format!("{sweep:?}"), pool, index, ENTRIES_MAX, || async {
            assert!(store.sweep_stale(leadership.term(), sweep, 100).await.unwrap().is_empty());
        })
        .await;
    }
    uses("stale runs", pool, "run_under_way", ENTRIES_MAX, || async {
        assert!(store.stale_runs(10).await.unwrap().is_empty());
    })
    .await;
}

/// How many were held.
async fn release_lanes(pool: &PgPool) -> u64 {
    let released = sqlx::query(
        "update lane set held_at = null, hold_reason = null, hold_fingerprint = null
          where run_id = 'ffffffff-ffff-7fff-bfff-ffffffffffff' and held_at is not null",
    );
    released.execute(pool).await.unwrap().rows_affected()
}

/// An end of a job, alone in its worker where that crashed.
fn ended(claim: Claim, outcome: AttemptOutcome) -> AttemptEnd {
    let is_crash = outcome == AttemptOutcome::Lost;
    let fingerprint = is_crash.then(|| Fingerprint::of(&Cause::Exit(1), "", Some("mock/0")));
    AttemptEnd { alone: is_crash, fingerprint, ..end(claim, JobKind::ProbeScenario, outcome) }
}

/// A run with a guard, of a provider with limits and a user with one, that is claimed from before all others. Its ids are the
/// last: what reads a table in the order of its ids has read all of it then.
async fn newest_run(pool: &PgPool) {
    let statements = [
        "insert into rate_limit (name, in_flight_max, requests_per_minute, tokens_per_minute)
         values ('mock', 1000000, 10000000, 100000000)",
        "insert into spend_limit (scope, key, period, usd, set_by) values ('USER', 'user0', 'DAY', 1000000, 'admin')",
        "insert into run (id, batch_id, request_id, definition_id, definition_snapshot, models, params, status, priority,
                          sample_percentage, sample_seed, sample_algorithm, created_by, started_at, max_failure_rate,
                          min_finished)
         select 'ffffffff-ffff-7fff-bfff-ffffffffffff', md5('b')::uuid, 'r', md5('d0')::uuid, '{}', array['mock/a'], '{}',
                'RUNNING', 9, 100, 1, 'a', 'user0', now(), 0.99, 1000000",
        "with sample as (
            select s.id from scenario s order by s.id limit 1000
         ), made as (
            insert into lane (run_id, kind, model, position, priority, is_live, total, pending, active, estimate_usd,
                              is_guarded)
            select 'ffffffff-ffff-7fff-bfff-ffffffffffff', 'probe:scenario', 'mock/' || m, m, 9, true, 1001, 1000, 1, 0.001,
                   true
              from generate_series(0, 1) m
            returning id
         )
         insert into job (lane_id, scenario_id, run_at, is_fresh)
         select m.id, s.id, now(), true from made m cross join sample s order by m.id, s.id",
        "update lane l set fresh = j.n, fresh_after = j.first - 1, fresh_until = j.last, fresh_at = now()
           from (select lane_id, count(*) as n, min(id) as first, max(id) as last from job group by lane_id) as j
          where l.id = j.lane_id and l.run_id = 'ffffffff-ffff-7fff-bfff-ffffffffffff'",
    ];
    for statement in statements {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
}
