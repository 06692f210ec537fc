//! What a database consists of after migrating from nothing: a change of it is a decision, not an accident.

use super::TestDatabase;

/// Each row's texts, joined by a space.
async fn listed(db: &TestDatabase, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(db.pool()).await.unwrap()
}

const ENUMS: [&str; 9] = [
    "attempt_outcome: completed failed retried throttled lost released cancelled",
    "dlq_reason: staleness_timeout max_retries_exceeded dependency_cycle_detected worker_unavailable manual_dlq \
     non_retryable crash_loop",
    "dlq_resolution_status: pending manually_resolved permanently_failed cancelled",
    "job_kind: probe:scenario analyze:basic analyze:deep",
    "job_state: pending active completed failed cancelled",
    "run_status: PENDING RUNNING PAUSED COMPLETED FAILED CANCELLED",
    "staleness_action: REPORT REQUEUE DLQ FAIL",
    "staleness_health: ok warning stale",
    "staleness_stage: waiting waiting_for_retry in_process run",
];

/// The migrator's own is the first. Partitions of the archive come and go with the months, their parents stay.
const TABLES: [&str; 37] = [
    "_sqlx_migrations",
    "analysis",
    "archived_job (partitioned)",
    "archived_job_cancelled (partitioned)",
    "archived_job_completed (partitioned)",
    "archived_job_failed (partitioned)",
    "audit",
    "claim",
    "dead_letter",
    "definition",
    "ended_job",
    "home",
    "job",
    "lane",
    "lane_crash",
    "lane_error",
    "leadership",
    "lease_watch",
    "live_mark",
    "model_statistic",
    "node",
    "past_attempt",
    "provider_role",
    "queue_minute",
    "queue_state",
    "rate_grant",
    "rate_limit",
    "run",
    "scenario",
    "spend_day",
    "spend_limit",
    "staleness_mark",
    "staleness_notice",
    "staleness_run_notice",
    "staleness_threshold",
    "transcript",
    "waiting_job",
];

const VIEWS: [&str; 13] = [
    "active_job",
    "any_attempt",
    "any_job",
    "any_transcript",
    "attempt",
    "current_job",
    "v_archive_statistics",
    "v_dlq_dashboard",
    "v_dlq_investigation_queue",
    "v_run_staleness",
    "v_run_thresholds",
    "v_staleness_thresholds",
    "v_task_staleness_monitoring",
];

#[tokio::test]
async fn a_migrated_database_has_these_enums_tables_and_views_and_no_others() {
    let db = TestDatabase::create(1).await;
    let enums = "select t.typname || ': ' || string_agg(e.enumlabel, ' ' order by e.enumsortorder)
                   from pg_type t join pg_enum e on e.enumtypid = t.oid
                  group by t.typname order by t.typname";
    assert_eq!(listed(&db, enums).await, ENUMS);
    let tables = "select c.relname || case c.relkind when 'p' then ' (partitioned)' else '' end
                    from pg_class c
                   where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'f')
                     and c.relname::text not in (select partition from archive_partitions())
                   order by c.relname";
    assert_eq!(listed(&db, tables).await, TABLES);
    let months =
        "select outcome || ' ' || (from_at - date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'
                                            < interval '1 day') from archive_partitions() order by 1";
    let both = [
        "cancelled false",
        "cancelled true",
        "completed false",
        "completed true",
        "failed false",
        "failed true",
    ];
    assert_eq!(listed(&db, months).await, both, "this month and the next");
    let views = "select c.relname::text from pg_class c
                  where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm') order by c.relname";
    assert_eq!(listed(&db, views).await, VIEWS);
}

#[tokio::test]
async fn every_enum_and_view_says_what_it_is_for() {
    let db = TestDatabase::create(1).await;
    let silent = "select t.typname::text from pg_type t
                   where t.typtype = 'e' and obj_description(t.oid, 'pg_type') is null
                  union all
                  select c.relname::text from pg_class c
                   where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm')
                     and obj_description(c.oid, 'pg_class') is null";
    assert_eq!(listed(&db, silent).await, Vec::<String>::new());
}
