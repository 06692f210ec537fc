//! What goes into the archive, and what waits for whom.

use runlane::app::Roles;
use runlane::embedded::Cluster as Postgres;
use serde_json::json;
use sqlx::Connection;
use tokio::time::timeout;

use super::{BY_HAND, archive, count, finished_run, mismatches};
use crate::control::support::{ENDLESS, act, counts, did, is_analysis, queue};
use crate::support::app::{Cluster, PATIENCE};
use crate::support::postgres::{scratch, throw_away_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_may_still_change_is_left_alone() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    for (what, change, undo) in [
        (
            "it ended less than a day ago",
            "update run set completed_at = clock_timestamp() + interval '1 second'",
            "update run set completed_at = clock_timestamp() - interval '1 second'",
        ),
        (
            "it runs again",
            "update run set status = 'RUNNING', completed_at = null",
            "update run set status = 'COMPLETED', completed_at = clock_timestamp() - interval '1 second'",
        ),
        (
            "a job of another lane of it waits",
            "update lane set is_live = true, total = total + 1, pending = 1 where model = 'mock/rater'",
            "update lane set is_live = false, total = total - 1, pending = 0 where model = 'mock/rater'",
        ),
        (
            "its analysis waits",
            "update lane set is_live = true, total = total + 1, pending = 1 where kind = 'analyze:basic'",
            "update lane set is_live = false, total = total - 1, pending = 0 where kind = 'analyze:basic'",
        ),
        (
            "somebody looks into a dead letter of it",
            super::OPEN_DEAD_LETTER,
            "update dead_letter set status = 'manually_resolved', resolved_at = now(), resolved_by = 'root'",
        ),
    ] {
        // Nodes would rescue what only seems to run.
        let mut held = cluster.db.begin().await.unwrap();
        sqlx::query(change).execute(&mut *held).await.unwrap();
        let moved: i32 =
            sqlx::query_scalar("select archive_jobs('0', 1000)").fetch_one(&mut *held).await.unwrap();
        assert_eq!(moved, 0, "{what}");
        sqlx::query(undo).execute(&mut *held).await.unwrap();
        let moved: i32 =
            sqlx::query_scalar("select archive_jobs('0', 1000)").fetch_one(&mut *held).await.unwrap();
        assert_eq!(moved, 24, "{what} no longer");
        held.rollback().await.unwrap();
    }
    assert_eq!(cluster.state(&run).await["status"], "COMPLETED");
    let later: i32 =
        sqlx::query_scalar("select archive_jobs('1 day', 1000)").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(later, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_moves_no_more_than_its_batch_whatever_the_lanes() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    finished_run(&mut cluster).await;
    finished_run(&mut cluster).await;
    let mut moved = Vec::new();
    while moved.last() != Some(&0) {
        moved.push(archive(&cluster, 13).await);
        assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    }
    assert_eq!(moved, [13, 13, 13, 9, 0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_and_claims_do_not_wait_for_each_other() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let waiting =
        cluster.run(&cluster.definition(3).await, &["mock/echo"], json!({ "maxConcurrency": 1 })).await;
    // A step that does not end: claims and completions of others go on, and so does every read.
    let mut step = cluster.db.begin().await.unwrap();
    let moved: i32 = sqlx::query_scalar("select archive_jobs('0', 20)").fetch_one(&mut *step).await.unwrap();
    assert_eq!(moved, 20);
    cluster.until(&waiting, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    assert_eq!(counts(&cluster.state(&run).await), [0, 0, 12, 11, 1]);
    // Another node that wants to archive does not wait either.
    let second: Option<i32> =
        sqlx::query_scalar("select archive_jobs('0', 20)").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(second, None, "one at a time");
    step.rollback().await.unwrap();
    // Nor does a step wait for who holds the gate, a lane or a job of a run.
    let mut other = sqlx::PgConnection::connect(&cluster.url).await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(gate())").execute(&mut *held).await.unwrap();
    sqlx::query("select id from lane where model = 'mock/rater' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let moved = tokio::time::timeout(PATIENCE, archive(&cluster, 1_000)).await.expect("it waits for nobody");
    assert_eq!(moved, 12 + 3, "all but the lane that is held");
    held.rollback().await.unwrap();
    assert_eq!(archive(&cluster, 1_000).await, 12);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_the_archive_at_once_lose_and_double_nothing() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    queue(&cluster, "pauseQueue").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (moves, mut moved) = tokio::sync::watch::channel(0);
    let db = cluster.db.clone();
    let archiving = tokio::spawn(async move {
        while !*stopped.borrow() {
            let jobs: Option<i32> =
                sqlx::query_scalar("select archive_jobs('0', 3)").fetch_one(&db).await.unwrap();
            moves.send_modify(|n| *n += i32::from(jobs.is_some_and(|n| n > 0)));
        }
    });
    for _ in 0..20 {
        did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
        assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
        assert_eq!(counts(&cluster.state(&run).await), [11, 0, 12, 0, 1]);
        let before = *moved.borrow();
        // As if they had failed again.
        sqlx::raw_sql(
            "begin;
             select id from lane where kind = 'probe:scenario' order by id for update;
             update job set state = 'failed', finished_at = now(), error_code = 'validation', error_message = 'm',
                            error_retryable = false where state = 'pending' and scenario_id is not null;
             update lane set failed = failed + pending, pending = 0, is_live = false where kind = 'probe:scenario';
             insert into lane_error select id, 'validation', failed from lane
              where failed > purged_failed and kind = 'probe:scenario';
             update run set status = 'COMPLETED', completed_at = clock_timestamp();
             commit",
        )
        .execute(&cluster.db)
        .await
        .unwrap();
        // The archive is at it again when the next retry takes back what it moves.
        timeout(PATIENCE, moved.wait_for(|n| *n > before)).await.unwrap().unwrap();
    }
    stop.send(true).unwrap();
    archiving.await.unwrap();
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hot_tables_stay_as_large_as_what_is_hot() {
    // A server of its own: an old snapshot anywhere in a server keeps emptied pages of indexes from being used again.
    let home = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir_in(scratch())
        .unwrap();
    let postgres = Postgres::start(&throw_away_in(home.path().join("database"))).await.unwrap();
    let serves = Roles { serves: true, executes: false };
    let cluster = Cluster::on(postgres.url().to_owned(), &BY_HAND, serves).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    let fill = "
        insert into job (lane_id, scenario_id, sample, state, claims, run_at, node_id, claimed_at, finished_at)
        select l.id, s.id, n + (select count(*) from archived_job), 'completed', 1, now(), gen_random_uuid(), now(), now()
          from lane l cross join scenario s cross join generate_series(1, 5000) n;
        insert into transcript (job_id, lane_id, scenario_id, turns, usage, latency_ms, created_at)
        select id, lane_id, scenario_id, to_json(array[md5(id::text), repeat('words ', 40)]), '{}', 1, now()
          from current_job where state = 'completed';
        delete from job where state = 'pending';
        update lane set pending = 0, is_live = false, is_archived = false, completed = completed + 5000, total = completed + 5000;
        update run set status = 'COMPLETED', completed_at = clock_timestamp()";
    let mut sizes = Vec::new();
    for _ in 0..6 {
        sqlx::raw_sql(fill).execute(&cluster.db).await.unwrap();
        sizes.push(count(&cluster, "select bytes from v_archive_statistics where place = 'hot'").await);
        while archive(&cluster, 500).await > 0 {}
        sqlx::raw_sql("vacuum job, past_attempt, transcript").execute(&cluster.db).await.unwrap();
    }
    assert_eq!(counts(&cluster.state(&run).await), [0, 0, 30_000, 0, 0]);
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    assert!(sizes[5] < 2 * sizes[0], "six times as many jobs came: {sizes:?}");
    cluster.stop().await;
    postgres.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_archives_by_itself() {
    let mut cluster = Cluster::api_only(&[
        ("RUNLANE_MAINTENANCE_INTERVAL", "50ms"),
        ("RUNLANE_ARCHIVE_AFTER", "0s"),
        ("RUNLANE_ARCHIVE_BATCH", "5"),
    ])
    .await;
    let run = finished_run(&mut cluster).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while count(&cluster, "select count(*) from archived_job").await < 24 {
        assert!(tokio::time::Instant::now() < deadline, "maintenance archives nothing");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(counts(&cluster.state(&run).await), [0, 0, 12, 11, 1]);
    // What runs is not in its way.
    let endless = cluster.run(&cluster.definition(1).await, &[ENDLESS], json!({})).await;
    cluster.until(&endless, "started", |s| counts(s)[1] == 1).await;
    act(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &endless).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_rests_after_a_step_until_the_interval_is_over_at_most() {
    let mut cluster = Cluster::api_only(&[
        ("RUNLANE_MAINTENANCE_INTERVAL", "2s"),
        ("RUNLANE_ARCHIVE_AFTER", "0s"),
        ("RUNLANE_ARCHIVE_BATCH", "5"),
        // A step takes a millisecond at least.
        ("RUNLANE_ARCHIVE_REST", "10000"),
    ])
    .await;
    finished_run(&mut cluster).await;
    let steps = "select count(distinct archived_at) from archived_job";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while count(&cluster, steps).await < 2 {
        assert!(tokio::time::Instant::now() < deadline, "one step was all");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let apart = count(
        &cluster,
        "select (extract(epoch from max(at) - min(at)) * 1000)::bigint
           from (select distinct archived_at as at from archived_job order by 1 limit 2) as first",
    )
    .await;
    assert!(apart >= 2_000, "{apart} ms");
    cluster.stop().await;
}
