//! The mark from which live lanes are looked for goes up behind those that have ended, and never past one that lives.

use runlane::domain::{AttemptOutcome, JobKind};
use runlane::store::RunChange;
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::app::fresh_database;
use crate::support::direct::{Direct, end};

/// A queue in which one run has ended, its analysis too, and another waits; a node; the two runs.
async fn queue() -> (Direct, Uuid, [Uuid; 2]) {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(1).await;
    let node = direct.node().await;
    let ended = direct.start(definition, &["mock/echo"], None).await;
    complete(&direct, node, JobKind::ProbeScenario).await;
    complete(&direct, node, JobKind::AnalyzeBasic).await;
    let waits = direct.start(definition, &["mock/echo"], None).await;
    (direct, node, [ended, waits])
}

/// Claims the one job of this kind, and completes it.
async fn complete(direct: &Direct, node: Uuid, kind: JobKind) {
    let claims = direct.claim(node, kind, 9).await;
    assert_eq!(claims.len(), 1, "{kind}");
    direct.end(node, end(claims[0], kind, AttemptOutcome::Completed)).await.expect("it was in time");
}

async fn mark(db: &PgPool) -> i64 {
    sqlx::query_scalar("select live_from from live_mark").fetch_one(db).await.unwrap()
}

/// The lane of this kind of a run.
async fn lane(db: &PgPool, run: Uuid, kind: JobKind) -> i64 {
    sqlx::query_scalar("select id from lane where run_id = $1 and kind = $2::text::job_kind")
        .bind(run)
        .bind(kind.as_str())
        .fetch_one(db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_up_to_the_first_live_lane_and_back_to_one_that_comes_to_life_again() {
    let (direct, node, [ended, waits]) = queue().await;
    assert_eq!(mark(&direct.db).await, 0);
    direct.store.refresh_figures().await.unwrap();
    assert_eq!(mark(&direct.db).await, lane(&direct.db, waits, JobKind::ProbeScenario).await);

    direct.force(ended, RunChange::StartAnalysis(JobKind::AnalyzeBasic)).await;
    assert_eq!(mark(&direct.db).await, lane(&direct.db, ended, JobKind::AnalyzeBasic).await);
    assert_eq!(direct.violations(false, &[]).await, []);
    complete(&direct, node, JobKind::AnalyzeBasic).await;
    direct.store.refresh_figures().await.unwrap();
    assert_eq!(mark(&direct.db).await, lane(&direct.db, waits, JobKind::ProbeScenario).await);
    complete(&direct, node, JobKind::ProbeScenario).await;
    complete(&direct, node, JobKind::AnalyzeBasic).await;
    direct.store.refresh_figures().await.unwrap();
    let last: i64 = sqlx::query_scalar("select max(id) from lane").fetch_one(&direct.db).await.unwrap();
    assert_eq!(mark(&direct.db).await, last, "nothing lives");
    assert_eq!(direct.violations(true, &[ended, waits]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_lane_that_is_coming_to_life_again() {
    let (direct, node, [ended, _]) = queue().await;
    let mut coming = direct.db.begin().await.unwrap();
    sqlx::query("select start_analysis($1, 'analyze:basic')")
        .bind(ended)
        .execute(&mut *coming)
        .await
        .unwrap();
    direct.store.refresh_figures().await.unwrap();
    coming.commit().await.unwrap();
    assert_eq!(direct.violations(false, &[]).await, []);
    complete(&direct, node, JobKind::AnalyzeBasic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_new_lane() {
    let (direct, node, [ended, waits]) = queue().await;
    let mut coming = direct.db.begin().await.unwrap();
    sqlx::query(
        "with new_lane as (
            insert into lane (run_id, kind, position, priority, is_live, total, pending)
            values ($1, 'analyze:deep', 0, 5, true, 1, 1) returning id
         )
         insert into job (lane_id, run_at) select id, now() from new_lane",
    )
    .bind(ended)
    .execute(&mut *coming)
    .await
    .unwrap();
    complete(&direct, node, JobKind::ProbeScenario).await;
    direct.store.refresh_figures().await.unwrap();
    coming.commit().await.unwrap();
    assert_eq!(direct.violations(false, &[waits]).await, []);
    complete(&direct, node, JobKind::AnalyzeDeep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_was_numbered_before_it_went_up_has_it_go_back() {
    let (direct, node, [ended, _]) = queue().await;
    let id: i64 = sqlx::query_scalar("select nextval(pg_get_serial_sequence('lane', 'id'))")
        .fetch_one(&direct.db)
        .await
        .unwrap();
    complete(&direct, node, JobKind::ProbeScenario).await;
    direct.store.refresh_figures().await.unwrap();
    assert!(mark(&direct.db).await > id);
    sqlx::query(
        "with new_lane as (
            insert into lane (id, run_id, kind, position, priority, is_live, total, pending) overriding system value
            values ($2, $1, 'analyze:deep', 0, 5, true, 1, 1)
         )
         insert into job (lane_id, run_at) values ($2, now())",
    )
    .bind(ended)
    .bind(id)
    .execute(&direct.db)
    .await
    .unwrap();
    assert_eq!(mark(&direct.db).await, id);
    complete(&direct, node, JobKind::AnalyzeDeep).await;
}
