//! A database that has seen everything that jobs go through.

use runlane::domain::job::Claim;
use runlane::domain::{AttemptOutcome, CancelMode, JobKind};
use runlane::store::{JobChange, RunChange};
use uuid::Uuid;

use crate::support::direct::{Direct, end};
use crate::support::postgres::database_like;

const PROBE: JobKind = JobKind::ProbeScenario;
const BASIC: JobKind = JobKind::AnalyzeBasic;

/// The URL of a copy of its own.
pub async fn aged_database() -> String {
    database_like("aged", async |url| {
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        runlane::store::migrate(&pool).await.unwrap();
        pool.close().await;
        let direct = Direct::on(&url).await;
        age(&direct).await;
        direct.db.close().await;
    })
    .await
}

/// Leaves a run in every status, with jobs in every state and attempts of every outcome.
async fn age(direct: &Direct) {
    let definition = direct.definition(4).await;
    let node = direct.node().await;
    retried_and_analysed_twice(direct, node, definition).await;
    paused_then_cancelled(direct, node, definition).await;
    crash_loop(direct, node).await;
    // Left as they are: paused with work in progress, running, and not begun.
    for status in ["PAUSED", "RUNNING"] {
        let run = direct.start(definition, &["mock/echo"], Some(3)).await;
        let claims = direct.claim(node, PROBE, 2).await;
        finish(direct, node, claims[0], PROBE, AttemptOutcome::Retried).await;
        if status == "PAUSED" {
            direct.force(run, RunChange::Pause).await;
        } else {
            direct.force(run, RunChange::SetPriority(0)).await;
        }
    }
    direct.start(definition, &["mock/echo", "mock/rater"], None).await;
}

async fn finish(direct: &Direct, node: Uuid, claim: Claim, kind: JobKind, outcome: AttemptOutcome) {
    assert!(direct.end(node, end(claim, kind, outcome)).await.is_some(), "{claim} {outcome}");
}

/// Claims the run's next job and ends it so, once for each outcome.
async fn each(direct: &Direct, node: Uuid, outcomes: &[AttemptOutcome]) {
    for &outcome in outcomes {
        let claims = direct.claim(node, PROBE, 1).await;
        finish(direct, node, claims[0], PROBE, outcome).await;
    }
}

async fn analyse(direct: &Direct, node: Uuid) {
    let claims = direct.claim(node, BASIC, 1).await;
    finish(direct, node, claims[0], BASIC, AttemptOutcome::Completed).await;
}

async fn retried_and_analysed_twice(direct: &Direct, node: Uuid, definition: Uuid) {
    use AttemptOutcome::{Completed, Failed, Lost, Released, Retried, Throttled};
    let run = direct.start(definition, &["mock/echo", "mock/rater"], None).await;
    each(direct, node, &[Retried, Throttled, Lost, Released]).await;
    each(direct, node, &[Completed, Failed, Completed, Failed, Completed, Completed, Completed, Completed])
        .await;
    analyse(direct, node).await;
    direct.force_retry(run).await;
    each(direct, node, &[Retried, Completed, Completed]).await;
    analyse(direct, node).await;
}

async fn paused_then_cancelled(direct: &Direct, node: Uuid, definition: Uuid) {
    let run = direct.start(definition, &["mock/echo"], None).await;
    let claims = direct.claim(node, PROBE, 2).await;
    direct.force(run, RunChange::Pause).await;
    finish(direct, node, claims[0], PROBE, AttemptOutcome::Retried).await;
    direct.force(run, RunChange::Resume).await;
    let waiting: i64 = sqlx::query_scalar(
        "select max(j.id) from current_job j join lane l on l.id = j.lane_id where l.run_id = $1 and j.state = 'pending'",
    )
    .bind(run)
    .fetch_one(&direct.db)
    .await
    .unwrap();
    direct.force_job(waiting, JobChange::Cancel).await;
    direct.force(run, RunChange::Cancel(CancelMode::Immediate)).await;
    finish(direct, node, claims[1], PROBE, AttemptOutcome::Cancelled).await;
    analyse(direct, node).await;
}

async fn crash_loop(direct: &Direct, node: Uuid) {
    let definition = direct.definition(1).await;
    direct.start(definition, &["mock/echo"], None).await;
    for outcome in [AttemptOutcome::Lost, AttemptOutcome::Lost, AttemptOutcome::Failed] {
        let claims = direct.claim(node, PROBE, 1).await;
        let mut crash = end(claims[0], PROBE, outcome);
        crash.alone = true;
        direct.end(node, crash).await.unwrap();
    }
    analyse(direct, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_seen_everything_is_clean() {
    let direct = Direct::on(&aged_database().await).await;
    let runs: Vec<Uuid> = sqlx::query_scalar("select id from run").fetch_all(&direct.db).await.unwrap();
    assert_eq!(direct.violations(false, &runs).await, []);
    let missing: Vec<String> = sqlx::query_scalar(
        "select s::text from unnest(enum_range(null::job_state)) s where s not in (select state from current_job)
         union all
         select o::text from unnest(enum_range(null::attempt_outcome)) o where o not in (select outcome from attempt)
         union all
         select s::text from unnest(enum_range(null::run_status)) s where s not in (select status from run)",
    )
    .fetch_all(&direct.db)
    .await
    .unwrap();
    assert_eq!(missing, ["FAILED"], "nothing brings a run there yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_or_runs_is_a_violation_only_at_rest() {
    let direct = Direct::on(&aged_database().await).await;
    let (jobs, runs): (i64, i64) = sqlx::query_as(
        "select (select count(*) from current_job j join lane l on l.id = j.lane_id
                  where j.state = 'active' or j.state = 'pending' and l.is_open),
                (select count(*) from run where completed_at is null)",
    )
    .fetch_one(&direct.db)
    .await
    .unwrap();
    let found = direct.violations(true, &[]).await;
    let of = |check: &str| found.iter().filter(|v| v.check == check).count() as i64;
    assert!(jobs > 0 && runs == 3);
    assert_eq!((of("job_unfinished"), of("run_unfinished"), found.len() as i64), (jobs, runs, jobs + runs));
}
