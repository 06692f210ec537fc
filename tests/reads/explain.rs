//! Every list reads its own index, and no more of it than a page, also of a run that is half archived: told by
//! PostgreSQL's own figures of what was scanned, for the statements as the program sends them, often enough that their
//! generic plans are tried too.

use std::collections::BTreeMap;

use runlane::domain::filter::{JobFilter, RunFilter};
use runlane::domain::page::PageRequest;
use runlane::domain::{JobKind, JobState, RunStatus};
use runlane::store::Store;
use sqlx::PgPool;
use uuid::Uuid;

use super::TestDatabase;

/// PostgreSQL considers a generic plan from the sixth execution of a prepared statement on.
pub(super) const EXECUTIONS: i64 = 8;

/// What was scanned so far: by sequential scans of a table, and by scans of an index.
struct Scanned {
    sequential: BTreeMap<String, i64>,
    by_index: BTreeMap<String, i64>,
}

async fn scanned(pool: &PgPool) -> Scanned {
    // On the pool's one connection, whose figures this hands in.
    sqlx::query("select pg_stat_force_next_flush()").execute(pool).await.unwrap();
    let tables: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, coalesce(seq_scan, 0) from pg_stat_user_tables
          where relname in ('job', 'waiting_job', 'ended_job', 'run', 'transcript', 'scenario', 'past_attempt')
             or relname ~ '^archived_job_.*[0-9]$' and pg_table_size(relid) > 100000",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let indexes: Vec<(String, i64)> =
        sqlx::query_as("select indexrelname::text, coalesce(idx_tup_read, 0) from pg_stat_user_indexes")
            .fetch_all(pool)
            .await
            .unwrap();
    Scanned { sequential: tables.into_iter().collect(), by_index: indexes.into_iter().collect() }
}

/// Runs `read` and checks that it scans no large table, and that it reads `index`, and no index beyond `entries_max`
/// entries for each execution.
pub(super) async fn uses<T, F: Future<Output = T>>(
    what: &str,
    pool: &PgPool,
    index: &str,
    entries_max: i64,
    read: impl Fn() -> F,
) {
    let before = scanned(pool).await;
    for _ in 0..EXECUTIONS {
        read().await;
    }
    let after = scanned(pool).await;
    assert_eq!(after.sequential.len(), 7 + ARCHIVED, "the large tables");
    for (table, scans) in &after.sequential {
        assert_eq!(*scans, before.sequential[table], "{what} reads the table {table} as a whole");
    }
    let read: BTreeMap<&str, i64> = after
        .by_index
        .iter()
        .map(|(name, entries)| (name.as_str(), entries - before.by_index[name]))
        .filter(|(_, entries)| *entries > 0)
        .collect();
    assert!(read.contains_key(index), "{what} does not use {index}: {read:?}");
    for (name, entries) in &read {
        assert!(*entries <= entries_max * EXECUTIONS, "{what} reads {entries} entries of {name}: {read:?}");
    }
}

/// Checks that what begins so has been run on a kept plan: to plan it each time would take longer than to run it.
pub(super) async fn keeps_its_plan(what: &str, pool: &PgPool, beginning: &str) {
    let kept: Option<i64> = sqlx::query_scalar(
        "select sum(generic_plans)::bigint from pg_prepared_statements where starts_with(trim(statement, E' \n'), $1)",
    )
    .bind(beginning)
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(kept > Some(0), "{what}: {kept:?} executions on a kept plan");
}

const MODELS: i64 = 5;
const SCENARIOS: i64 = 40_000;
const RUNS: i64 = 20_000;
/// Large partitions of the archive: three months of each outcome.
const ARCHIVED: usize = 9;

/// One run of 200,000 jobs in all states, and 20,000 small ones.
async fn fill(pool: &PgPool) -> Uuid {
    let statements = [
        format!(
            "insert into definition (id, name, version, content, scenario_count, created_by)
             select md5('d' || n)::uuid, 'definition ' || n, 1, '{{}}', {SCENARIOS}, 'ada' from generate_series(0, 199) n"
        ),
        format!(
            "insert into scenario (definition_id, key, name, prompt, dimensions)
             select md5('d0')::uuid, 'key=' || lpad(n::text, 6, '0'), 'n', 'p', '{{}}' from generate_series(1, {SCENARIOS}) n"
        ),
        format!(
            "insert into run (id, batch_id, request_id, definition_id, definition_snapshot, experiment_id, models,
                              params, status, priority, sample_percentage, sample_seed, sample_algorithm, created_by,
                              started_at, completed_at)
             select md5('r' || n)::uuid, md5('b' || n / 10)::uuid, 'r', md5('d' || n % 200)::uuid, '{{}}',
                    'e' || n % 200, array['mock/a'], '{{}}',
                    case when n % 400 = 0 then 'RUNNING' else 'COMPLETED' end::run_status, 5, 100, 1, 'a',
                    'user' || n % 200, now(), case when n % 400 <> 0 then now() end
               from generate_series(0, {RUNS} - 1) n"
        ),
        format!(
            "insert into lane (run_id, kind, model, position, priority, is_live, total, pending, completed)
             select md5('r' || n)::uuid, 'probe:scenario', 'mock/a', 0, 5, n % 400 = 0, 1, (n % 400 = 0)::int,
                    (n % 400 <> 0)::int
               from generate_series(1, {RUNS} - 1) n"
        ),
        // Last, because what reads all lanes in their order may stop when it has passed those that it looks for.
        format!(
            "insert into lane (run_id, kind, model, position, priority, is_live, total, pending, active, completed,
                               failed, cancelled)
             select md5('r0')::uuid, 'probe:scenario', 'mock/' || m, m, 5, true, {SCENARIOS},
                    {SCENARIOS} / 2, 0, {SCENARIOS} / 4, {SCENARIOS} / 8, {SCENARIOS} / 8
               from generate_series(0, {MODELS} - 1) m"
        ),
        "insert into job (lane_id, scenario_id, state, run_at, claims, claimed_at, finished_at, error_code,
                          error_message, error_retryable, is_fresh, node_id)
         select l.id, s.id, t.state, now(), (t.state <> 'pending')::int, now(),
                case when t.state <> 'pending' then now() - s.id * interval '1 ms' end,
                case when t.state = 'failed' then case when s.id % 800 = 6 then 'network' else 'timeout' end end,
                case when t.state = 'failed' then 'm' end, case when t.state = 'failed' then true end,
                t.state = 'pending' and l.model = 'mock/4', case when t.state = 'completed' then md5('n')::uuid end
           from lane l
          cross join scenario s
          cross join lateral (
            select (array['pending', 'completed', 'pending', 'completed', 'pending', 'cancelled', 'failed',
                          'pending'])[s.id % 8 + 1]::job_state as state
          ) as t
          where l.run_id = md5('r0')::uuid
          order by s.id, l.id"
            .to_owned(),
        "update lane l set fresh = j.n, fresh_after = j.first - 1, fresh_until = j.last, fresh_at = j.run_at
           from (select lane_id, count(*) as n, min(id) as first, max(id) as last, min(run_at) as run_at
                   from job where is_fresh group by lane_id) as j
          where l.id = j.lane_id"
            .to_owned(),
        "insert into transcript (job_id, lane_id, scenario_id, turns, usage, latency_ms, created_at)
         select j.id, j.lane_id, j.scenario_id, '[]', '{}', 1, now() from job j where j.state = 'completed'"
            .to_owned(),
        "insert into past_attempt (job_id, number, node_id, started_at, ended_at, outcome, error_code)
         select j.id, 1, md5('n')::uuid, now(), now(), 'failed', j.error_code from job j where j.state = 'failed'"
            .to_owned(),
        "insert into lane_error (lane_id, error_code, failed)
         select lane_id, error_code, count(*) from job where state = 'failed' group by lane_id, error_code"
            .to_owned(),
        // Every other finished job is archived, over three months.
        "select make_archive_partitions(now() - n * interval '1 month') from generate_series(0, 2) n".to_owned(),
        "insert into archived_job
                (id, lane_id, scenario_id, sample, state, is_suspect, cancel_requested, claims, epoch, epoch_claims,
                 failures, losses, losses_alone, throttles, throttled_ms, run_at, node_id, claimed_at, finished_at,
                 error_code, error_message, error_retryable, archived_at, attempts, seq, turns, usage, latency_ms, created_at)
         select j.id, j.lane_id, j.scenario_id, j.sample, j.state, false, false, j.claims, 0, 0, 0, 0, 0, 0, 0, j.run_at,
                j.node_id, j.claimed_at, j.finished_at, j.error_code, j.error_message, j.error_retryable,
                now() - j.id / 2 % 3 * interval '1 month',
                coalesce((select jsonb_agg(to_jsonb(a) - 'job_id') from past_attempt a where a.job_id = j.id), '[]'),
                t.seq, t.turns, t.usage, t.latency_ms, t.created_at
           from job j left join transcript t on t.job_id = j.id
          where j.state in ('completed', 'failed', 'cancelled') and j.id % 2 = 0"
            .to_owned(),
        "delete from past_attempt where job_id in (select id from archived_job)".to_owned(),
        "delete from transcript where job_id in (select id from archived_job)".to_owned(),
        "delete from job where id in (select id from archived_job)".to_owned(),
        "vacuum analyze".to_owned(),
    ];
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    }
    sqlx::query_scalar("select md5('r0')::uuid").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn no_statement_is_compiled() {
    let database = TestDatabase::create(1).await;
    let jit: String =
        sqlx::query_scalar("select current_setting('jit')").fetch_one(database.pool()).await.unwrap();
    assert_eq!(jit, "off", "it would take a tenth of a second where a plan seems dear");
}

fn page<K>(after: Option<K>) -> PageRequest<K> {
    PageRequest { limit: 50, after, count: true }
}

#[tokio::test]
async fn every_list_reads_a_page_of_its_own_index() {
    let database = TestDatabase::create(1).await;
    let pool = database.pool();
    let store = &Store::new(pool.clone());
    let run = fill(pool).await;
    // Somebody else's snapshot, as a backup holds one: nothing that is replaced from now on can be removed.
    let backup = PgPool::connect_with((*pool.connect_options()).clone()).await.unwrap();
    let mut snapshot = backup.begin_with("begin isolation level repeatable read").await.unwrap();
    sqlx::raw_sql("set local idle_in_transaction_session_timeout = 0; select txid_current()")
        .execute(&mut *snapshot)
        .await
        .unwrap();

    runs_lists(pool, store).await;
    job_lists(pool, store, run).await;

    // 51 of each lane, and once more for the page itself.
    let merged = 51 * MODELS + 51;
    uses("transcripts", pool, "transcript_by_lane", merged, || async {
        assert_eq!(store.transcripts(run, None, &page(None)).await.unwrap().items.len(), 50);
    })
    .await;
    uses("recent tasks", pool, "transcript_by_lane", merged, || async {
        assert_eq!(store.recent_tasks(&[run], 50).await.unwrap()[&run].len(), 50);
    })
    .await;
    uses("the pace", pool, "transcript_by_lane", 200 * MODELS, || async {
        assert_eq!(store.paces(&[run]).await.unwrap()[&run].finished, 200);
    })
    .await;
    uses("scenarios of a definition", pool, "scenario_by_key", 51, || async {
        let definition = store.run(run).await.unwrap().unwrap().definition_id;
        let after = page(Some("key=020000".to_owned()));
        assert_eq!(store.definition_scenarios(definition, &after, 1).await.unwrap().items.len(), 50);
    })
    .await;
    uses("scenarios of a run", pool, "scenario_by_key", 60, || async {
        let scenarios = store.run_scenarios(run, &page(Some("key=020000".to_owned()))).await.unwrap();
        assert_eq!((scenarios.items.len(), scenarios.total), (50, Some(SCENARIOS)));
    })
    .await;
    let jobs: Vec<i64> =
        sqlx::query_scalar("select id from job order by id limit 50").fetch_all(pool).await.unwrap();
    uses("attempts", pool, "past_attempt_pkey", 120, || async {
        assert!(!store.attempts(&jobs).await.unwrap().is_empty());
    })
    .await;
    uses("why jobs wait", pool, "waiting_job_due", 50 * 101, || async {
        assert!(!store.waiting_facts(&jobs, 100).await.unwrap().is_empty());
    })
    .await;
    super::hot::moves(pool, store, run).await;
    snapshot.rollback().await.unwrap();
}

async fn runs_lists(pool: &PgPool, store: &Store) {
    let id = |text: &'static str| async move {
        sqlx::query_scalar::<_, Uuid>("select md5($1)::uuid").bind(text).fetch_one(pool).await.unwrap()
    };
    let all = RunFilter::default();
    let user = |n: u32| Some(format!("user{n}"));
    let cases = [
        ("run_by_definition", RunFilter { definition_id: Some(id("d7").await), ..all.clone() }, 50),
        ("run_by_experiment", RunFilter { experiment_id: Some("e7".to_owned()), ..all.clone() }, 50),
        ("run_by_creator", RunFilter { created_by: user(7), ..all.clone() }, 50),
        ("run_by_creator", RunFilter { visible_to: user(7), ..all.clone() }, 50),
        ("run_by_batch", RunFilter { batch_id: Some(id("b7").await), ..all.clone() }, 10),
        (
            "run_by_status",
            RunFilter { statuses: Some(vec![RunStatus::Running, RunStatus::Paused]), ..all.clone() },
            50,
        ),
    ];
    for (index, filter, found) in cases {
        // A counted list reads its 100 entries, and the page as many again at most.
        uses(&format!("{filter:?}"), pool, index, 220, || async {
            assert_eq!(store.runs(&filter, &page(None), 10_000).await.unwrap().items.len(), found);
        })
        .await;
    }
    let uncounted = PageRequest { limit: 50, after: Some(RUNS / 2), count: false };
    uses("all runs", pool, "run_seq", 120, || async {
        assert_eq!(store.runs(&all, &uncounted, 10_000).await.unwrap().items.len(), 50);
    })
    .await;
}

async fn job_lists(pool: &PgPool, store: &Store, run: Uuid) {
    let all = JobFilter::default();
    let merged = 51 * MODELS * 4 + 51;
    let cases = [
        ("waiting_job_listing", all.clone(), SCENARIOS * MODELS),
        (
            "waiting_job_listing",
            JobFilter { kinds: Some(vec![JobKind::ProbeScenario]), ..all.clone() },
            SCENARIOS * MODELS,
        ),
        ("waiting_job_listing", JobFilter { model: Some("mock/3".to_owned()), ..all.clone() }, SCENARIOS),
        ("job_pkey", JobFilter { model: Some("mock/4".to_owned()), ..all.clone() }, SCENARIOS),
        (
            "ended_job_pkey",
            JobFilter { states: Some(vec![JobState::Failed, JobState::Cancelled]), ..all.clone() },
            SCENARIOS / 4 * MODELS,
        ),
        (
            "transcript_pkey",
            JobFilter { states: Some(vec![JobState::Completed]), ..all.clone() },
            SCENARIOS / 4 * MODELS,
        ),
        (
            "ended_job_code",
            JobFilter { error_code: Some("network".to_owned()), ..all.clone() },
            SCENARIOS / 800 * MODELS,
        ),
    ];
    for (index, filter, total) in cases {
        for after in [None, Some(SCENARIOS * MODELS / 2)] {
            uses(&format!("{filter:?} after {after:?}"), pool, index, merged, || async {
                let jobs = store.run_jobs(run, &filter, &page(after)).await.unwrap();
                assert_eq!((jobs.items.len(), jobs.total), (50, Some(total)));
                assert!(jobs.items.is_sorted_by(|a, b| a.id > b.id), "newest first");
            })
            .await;
        }
    }
}
