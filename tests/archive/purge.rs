//! Retention: whole partitions go, counters stay, and what is open again is kept.

use serde_json::{Value, json};

use super::{BY_HAND, archive, count, finished_run, mismatches, pages};
use crate::control::support::{act, counts, did, is_analysis, probes, queue};
use crate::queue::support::until_sql;
use crate::support::app::Cluster;

/// Runs the program on the cluster's database; returns what it printed.
async fn runlane(cluster: &Cluster, arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_runlane"))
        .args(arguments)
        .env("DATABASE_URL", &cluster.url)
        .env("RUNLANE_LOG", "error")
        .envs(settings.iter().copied())
        .current_dir(std::env::temp_dir())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lets the archived jobs of one outcome be older than they are.
async fn age(cluster: &Cluster, outcome: &str, days: i32) {
    let mut c = cluster.db.acquire().await.unwrap();
    sqlx::query("select make_archive_partitions(now() - $1 * interval '1 day')")
        .bind(days)
        .execute(&mut *c)
        .await
        .unwrap();
    sqlx::query("update archived_job set archived_at = archived_at - $1 * interval '1 day' where state = $2::job_state")
        .bind(days)
        .bind(outcome)
        .execute(&mut *c)
        .await
        .unwrap();
}

/// Who did this, and to how many jobs, by the record; without what was empty.
async fn acts(cluster: &Cluster, action: &str, facts: &str) -> Vec<(String, i64)> {
    let sql = format!(
        "select actor, ({facts} ->> 'jobs')::bigint from audit
                        where action = $1 and {facts} ->> 'jobs' <> '0' order by id"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(action).fetch_all(&cluster.db).await.unwrap()
}

async fn listed(cluster: &Cluster, run: &str, list: &str) -> (Value, usize) {
    let pages = pages(cluster, run, &format!("{list}(first: 7, after: $after)"), "id").await;
    let items = pages.iter().map(|p| p["nodes"].as_array().unwrap().len()).sum();
    (pages[0]["totalCount"].clone(), items)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_goes_when_all_of_it_is_old_and_progress_stays() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let said = runlane(&cluster, &["archive", "--dry-run"], &[("RUNLANE_ARCHIVE_AFTER", "0s")]).await;
    assert!(said.starts_with("Would archive 24 jobs of 1 runs: "), "{said}");
    assert!(!said.contains(" 0 B"), "{said}");
    assert_eq!(runlane(&cluster, &["archive"], &[]).await, "Archived 0 jobs.\n", "it ended just now");
    let after = [("RUNLANE_ARCHIVE_AFTER", "0s"), ("RUNLANE_ARCHIVE_BATCH", "7")];
    assert_eq!(runlane(&cluster, &["archive", "--as", "grace"], &after).await, "Archived 24 jobs.\n");
    let moved = acts(&cluster, "archive.archived", "after").await;
    assert_eq!(moved.iter().map(|(_, jobs)| jobs).sum::<i64>(), 24, "a record a step: {moved:?}");
    assert!(moved.iter().all(|(who, _)| who == "grace"), "{moved:?}");

    age(&cluster, "completed", 130).await;
    age(&cluster, "failed", 130).await;
    let before = cluster.state(&run).await;
    // A run that is open again keeps its partitions.
    queue(&cluster, "pauseQueue").await;
    let failed = probes(&cluster, &run, "FAILED").await;
    did(&cluster, "retryJob(id: $id)", &failed[0]).await;
    let purged: Option<i64> = sqlx::query_scalar(
        "select purge_partition(partition) from archive_partitions() where outcome = 'completed' and until_at < now()",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!(purged, None, "not even when asked for directly");
    let said = runlane(&cluster, &["purge"], &[]).await;
    assert!(said.contains("12 jobs") && said.contains("kept") && said.contains("Purged 0 jobs: "), "{said}");
    assert_eq!(count(&cluster, "select count(*) from archived_job_completed").await, 12);
    queue(&cluster, "resumeQueue").await;
    cluster
        .until(&run, "done", |s| counts(s) == [0, 0, 13, 10, 1] && is_analysis(s, "BASIC", "COMPLETED"))
        .await;

    let said = runlane(&cluster, &["purge", "--dry-run"], &[]).await;
    assert!(said.contains("archived_job_completed_") && said.contains("Would purge 12 jobs"), "{said}");
    assert!(!said.contains("archived_job_failed_"), "failed jobs are kept for longer: {said}");
    assert_eq!(count(&cluster, "select count(*) from archived_job_completed").await, 12);
    let said = runlane(&cluster, &["purge"], &[("RUNLANE_RETENTION_DAYS_COMPLETED", "0")]).await;
    assert_eq!(said, "Purged 0 jobs: 0 B.\n", "0 days are for ever");
    let said = runlane(&cluster, &["purge", "--as", "grace"], &[]).await;
    assert!(said.contains("Purged 12 jobs: "), "{said}");
    assert_eq!(count(&cluster, "select count(*) from archived_job_completed").await, 0);

    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    let after = cluster.state(&run).await;
    assert_eq!(counts(&after), [0, 0, 13, 10, 1], "what was done stays counted");
    assert_eq!(after["progress"]["total"], before["progress"]["total"]);
    assert_eq!(listed(&cluster, &run, "jobs").await, (json!(13), 13), "12 probes and an analysis are left");
    assert_eq!(listed(&cluster, &run, "transcripts").await, (json!(1), 1));
    assert_eq!(acts(&cluster, "archive.purged", "before").await, [("grace".to_owned(), 12)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_maintenance_archives_leaves_no_record_and_what_it_purges_is_the_systems() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    finished_run(&mut cluster).await;
    while archive(&cluster, 1_000).await > 0 {}
    assert_eq!(acts(&cluster, "archive.archived", "after").await, []);
    age(&cluster, "completed", 130).await;
    count(
        &cluster,
        "select sum(purge_partition(partition))::bigint from archive_partitions() where until_at < now()",
    )
    .await;
    let purged = acts(&cluster, "archive.purged", "before").await;
    assert!(purged.contains(&("system".to_owned(), 12)) && purged.iter().all(|(who, _)| who == "system"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_an_old_partition_holds_up_nothing_else() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let (kept, deleted) = (finished_run(&mut cluster).await, finished_run(&mut cluster).await);
    while archive(&cluster, 1_000).await > 0 {}
    age(&cluster, "completed", 130).await;
    age(&cluster, "failed", 230).await;
    let delete = "mutation($id: ID!) { deleteRun(id: $id) { id } }";
    cluster.user(delete, json!({ "id": deleted })).await.data();
    let mut reader = cluster.db.begin().await.unwrap();
    sqlx::query("select count(*) from archived_job_completed").execute(&mut *reader).await.unwrap();
    // A node that looks after the archive: who does it already goes.
    cluster.restart().await;
    let settings = [
        ("RUNLANE_ARCHIVE_ENABLED", "true"),
        ("RUNLANE_MAINTENANCE_INTERVAL", "50ms"),
        ("RUNLANE_DELETE_AFTER", "0s"),
    ];
    cluster.add_node(&settings).await;
    until_sql(
        &cluster.db,
        "the other partition is gone",
        "select not exists (select from archived_job_failed)",
    )
    .await;
    until_sql(&cluster.db, "the deleted run is gone", "select count(*) = 1 from run").await;
    assert_eq!(acts(&cluster, "archive.purged", "before").await, [("system".to_owned(), 22)]);
    reader.rollback().await.unwrap();
    until_sql(&cluster.db, "it is purged", "select not exists (select from archived_job_completed)").await;
    assert_eq!(counts(&cluster.state(&kept).await), [0, 0, 12, 11, 1]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_that_are_gone_cannot_be_retried_and_the_run_stays_closed() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let failed = probes(&cluster, &run, "FAILED").await;
    while archive(&cluster, 1_000).await > 0 {}
    age(&cluster, "failed", 230).await;
    assert!(runlane(&cluster, &["purge"], &[]).await.contains("Purged 11 jobs"));
    assert_eq!(did(&cluster, "retryFailedJobs(runId: $id)", &run).await["status"], "COMPLETED");
    assert_eq!(act(&cluster, "retryJob(id: $id)", &failed[0]).await.code(), "NOT_FOUND");
    let (total, _) =
        crate::control::support::jobs(&cluster, &run, json!({ "errorCode": "validation" })).await;
    assert_eq!(total, 0);
    assert_eq!(counts(&cluster.state(&run).await), [0, 0, 12, 11, 1]);
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_there_before_they_are_needed_and_statistics_name_them() {
    let cluster = Cluster::api_only(&BY_HAND).await;
    let made = |at: &'static str| {
        sqlx::query_scalar::<_, i32>("select make_archive_partitions($1::timestamptz)")
            .bind(at)
            .fetch_one(&cluster.db)
    };
    assert_eq!(
        made("2031-12-31 23:30:00+00").await.unwrap(),
        6,
        "this month and the next, of three outcomes"
    );
    // Still December where it is written, January where time is kept.
    assert_eq!(made("2031-12-31 23:30:00-02").await.unwrap(), 3);
    assert_eq!(made("2032-01-01 00:00:00+00").await.unwrap(), 0);
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "select relation, (from_at at time zone 'UTC')::text, (until_at at time zone 'UTC')::text from v_archive_statistics
          where place = 'archived' and outcome = 'failed' and from_at >= '2031-12-01' order by 1",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let row = |m: &str, from: &str, until: &str| {
        (format!("archived_job_failed_{m}"), format!("{from} 00:00:00"), format!("{until} 00:00:00"))
    };
    assert_eq!(
        rows,
        [
            row("2031_12", "2031-12-01", "2032-01-01"),
            row("2032_01", "2032-01-01", "2032-02-01"),
            row("2032_02", "2032-02-01", "2032-03-01"),
        ]
    );
    assert_eq!(
        count(&cluster, "select count(*) from v_archive_statistics where place = 'hot' and bytes > 0").await,
        1
    );
    let uncommented =
        "select count(*) from pg_class c where c.relname in ('any_job', 'any_attempt', 'any_transcript',
                       'v_archive_statistics') and obj_description(c.oid) is null";
    assert_eq!(count(&cluster, uncommented).await, 0);
    cluster.stop().await;
}
