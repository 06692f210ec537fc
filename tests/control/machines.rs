//! The state machines in Rust and in PostgreSQL: the same values, the same transitions.

use std::collections::BTreeSet;

use runlane::domain::dead_letter::{DeadLetterReason, DeadLetterStatus};
use runlane::domain::{AttemptOutcome, JobKind, JobState, RunAction, RunStatus, staleness};
use serde_json::json;

use super::support::{ENDLESS, counts, did, is_analysis, probes};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn the_enums_of_the_database_are_those_of_the_program() {
    let cluster = Cluster::api_only(&[]).await;
    let texts = |all: Vec<&'static str>| all;
    let enums = [
        ("run_status", texts(RunStatus::ALL.iter().map(|s| s.as_str()).collect())),
        ("job_state", texts(JobState::ALL.iter().map(|s| s.as_str()).collect())),
        ("job_kind", texts(JobKind::ALL.iter().map(|s| s.as_str()).collect())),
        ("attempt_outcome", texts(AttemptOutcome::ALL.iter().map(|s| s.as_str()).collect())),
        ("dlq_reason", texts(DeadLetterReason::ALL.iter().map(|s| s.as_str()).collect())),
        ("dlq_resolution_status", texts(DeadLetterStatus::ALL.iter().map(|s| s.as_str()).collect())),
        ("staleness_stage", texts(staleness::Stage::ALL.iter().map(|s| s.as_str()).collect())),
        ("staleness_health", texts(staleness::Health::ALL.iter().map(|s| s.as_str()).collect())),
        ("staleness_action", texts(staleness::Action::ALL.iter().map(|s| s.as_str()).collect())),
    ];
    for (name, program) in &enums {
        let database: Vec<String> = sqlx::query_scalar(
            "select e.enumlabel::text from pg_enum e join pg_type t on t.oid = e.enumtypid
              where t.typname = $1 order by e.enumsortorder",
        )
        .bind(name)
        .fetch_all(&cluster.db)
        .await
        .unwrap();
        assert_eq!(&database, program, "{name}");
    }
    let all: BTreeSet<String> =
        sqlx::query_scalar::<_, String>("select typname::text from pg_type where typtype = 'e'")
            .fetch_all(&cluster.db)
            .await
            .unwrap()
            .into_iter()
            .collect();
    assert_eq!(all, enums.iter().map(|(name, _)| (*name).to_owned()).collect(), "no enum is left out");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_states_that_lack_what_they_imply() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    // What a row needs to be in a state, and each with one thing missing or too much.
    let node = "node_id = '00000000-0000-7000-8000-000000000001'";
    let error = "error_code = 'x', error_message = 'x', error_retryable = false";
    let jobs: [(JobState, &str, &[&str]); 5] = [
        (JobState::Pending, "claims = 0", &[node, "finished_at = now()", "error_code = 'x'"]),
        (
            JobState::Active,
            "claims = 1, claimed_at = now(), node_id = '00000000-0000-7000-8000-000000000001'",
            &[
                "claims = 1, claimed_at = now()",
                "claimed_at = now(), node_id = gen_random_uuid()",
                "claims = 1, node_id = gen_random_uuid()",
            ],
        ),
        (
            JobState::Completed,
            "claims = 1, claimed_at = now(), node_id = gen_random_uuid(), finished_at = now()",
            &[
                "claims = 1, claimed_at = now(), node_id = gen_random_uuid()",
                "claimed_at = now(), node_id = gen_random_uuid(), finished_at = now()",
                "claims = 1, node_id = gen_random_uuid(), finished_at = now()",
                "claims = 1, claimed_at = now(), finished_at = now()",
                "claims = 1, claimed_at = now(), node_id = gen_random_uuid(), finished_at = now(), error_code = 'x',
                 error_message = 'x', error_retryable = false",
            ],
        ),
        (
            JobState::Failed,
            "finished_at = now(), error_code = 'x', error_message = 'x', error_retryable = false",
            &["finished_at = now()", error],
        ),
        (
            JobState::Cancelled,
            "finished_at = now()",
            &["claims = 1", "finished_at = now(), node_id = gen_random_uuid()"],
        ),
    ];
    assert_eq!(jobs.map(|(state, ..)| state), JobState::ALL);
    for (state, right, wrong) in jobs {
        for (assignments, allowed) in std::iter::once((right, true)).chain(wrong.iter().map(|w| (*w, false)))
        {
            try_update(
                &cluster,
                &format!("update job set state = '{state}', is_fresh = false, {assignments}"),
                allowed,
            )
            .await;
        }
    }
    let runs: [(RunStatus, &str, &[&str]); 6] = [
        (
            RunStatus::Pending,
            "started_at = null",
            &["started_at = now()", "completed_at = now()", "paused_at = now()"],
        ),
        (
            RunStatus::Running,
            "started_at = now()",
            &["completed_at = now()", "paused_at = now()", "cancel_mode = 'GRACEFUL'"],
        ),
        (
            RunStatus::Paused,
            "paused_at = now()",
            &["started_at = now()", "paused_at = now(), completed_at = now()"],
        ),
        (
            RunStatus::Completed,
            "completed_at = now()",
            &["completed_at = null", "completed_at = now(), paused_at = now()"],
        ),
        (
            RunStatus::Failed,
            "completed_at = now()",
            &["completed_at = null", "completed_at = now(), cancel_mode = 'IMMEDIATE'"],
        ),
        (
            RunStatus::Cancelled,
            "completed_at = now(), cancel_mode = 'IMMEDIATE'",
            &[
                "completed_at = now()",
                "cancel_mode = 'GRACEFUL'",
                "completed_at = now(), cancel_mode = 'LATER'",
            ],
        ),
    ];
    assert_eq!(runs.map(|(status, ..)| status), RunStatus::ALL);
    for (status, right, wrong) in runs {
        for (assignments, allowed) in std::iter::once((right, true)).chain(wrong.iter().map(|w| (*w, false)))
        {
            try_update(&cluster, &format!("update run set status = '{status}', {assignments}"), allowed)
                .await;
        }
    }
    assert_eq!(cluster.state(&run).await["status"], "PENDING", "every trial was rolled back");
    cluster.stop().await;
}

async fn try_update(cluster: &Cluster, statement: &str, allowed: bool) {
    let mut transaction = cluster.db.begin().await.unwrap();
    let result = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut *transaction).await;
    let refused = result.err().map(|e| {
        let error = e.into_database_error().expect("the database's own refusal");
        assert!(error.is_check_violation(), "{statement}: {error}");
    });
    assert_eq!(refused.is_none(), allowed, "{statement}");
    transaction.rollback().await.unwrap();
}

/// Notes every change of a job's state and of a run's status. The first claim of a job is not written to its row, which
/// waits until it ends.
const NOTES: &str = "
    create table note (kind text, old text, new text);
    create function note_job() returns trigger language plpgsql as $$ begin
        insert into note
        select l.kind::text, s.was, new.state::text
          from lane l
         cross join lateral (
            select case when old.is_fresh and old.id <= l.fresh_after then 'active' else old.state::text end as was) as s
         where l.id = new.lane_id and s.was <> new.state::text;
        return null;
    end $$;
    create trigger note after update of state on job for each row execute function note_job();
    create function note_run() returns trigger language plpgsql as $$ begin
        insert into note values ('run', old.status::text, new.status::text);
        return null;
    end $$;
    create trigger note after update of status on run for each row when (old.status <> new.status) execute function note_run();";

#[tokio::test(flavor = "multi_thread")]
async fn every_transition_of_the_tables_happens_and_no_other() {
    let quick = [("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "1"), ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", "1")];
    let mut cluster = Cluster::api_only(&quick).await;
    sqlx::raw_sql(NOTES).execute(&cluster.db).await.unwrap();
    let definition = cluster.definition(2).await;

    // PENDING → PAUSED → RUNNING → COMPLETED → RUNNING, with a retry, failures and a waiting job cancelled.
    let models = ["mock/rater", "mock/echo?failFirst=1", "mock/echo?fail=validation"];
    let first = cluster.run(&definition, &models, json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &first).await;
    did(&cluster, "resumeRun(id: $id)", &first).await;
    did(&cluster, "cancelJob(id: $id)", &probes(&cluster, &first, "PENDING").await[0]).await;
    // PENDING → CANCELLED, PAUSED → CANCELLED and PENDING → COMPLETED, the last with a waiting job given up.
    let pending = cluster.run(&definition, &["mock/echo"], json!({})).await;
    did(&cluster, "cancelRun(id: $id)", &pending).await;
    let paused = cluster.run(&definition, &["mock/echo"], json!({})).await;
    did(&cluster, "pauseRun(id: $id)", &paused).await;
    did(&cluster, "cancelRun(id: $id)", &paused).await;
    let emptied = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let [cancelled, given_up] = &probes(&cluster, &emptied, "PENDING").await[..] else { panic!("two wait") };
    did(&cluster, "cancelJob(id: $id)", cancelled).await;
    did(&cluster, "deadLetterJob(id: $id)", given_up).await;
    cluster.add_node(&[]).await;
    cluster.until(&first, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    did(&cluster, "retryFailedJobs(runId: $id)", &first).await;
    cluster.until_status(&first, "COMPLETED").await;
    // PENDING → RUNNING → PAUSED → COMPLETED, its active jobs cancelled one by one.
    let second = cluster.run(&definition, &[ENDLESS], json!({})).await;
    cluster.until(&second, "started", |s| counts(s)[1] == 2).await;
    did(&cluster, "pauseRun(id: $id)", &second).await;
    for id in probes(&cluster, &second, "RUNNING").await {
        did(&cluster, "cancelJob(id: $id)", &id).await;
    }
    cluster.until_status(&second, "COMPLETED").await;
    // RUNNING → CANCELLED.
    let third = cluster.run(&definition, &[ENDLESS], json!({})).await;
    cluster.until(&third, "started", |s| counts(s)[1] == 2).await;
    did(&cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &third).await;
    cluster.until(&third, "stopped", |s| counts(s)[1] == 0).await;
    // FAILED → RUNNING → COMPLETED.
    super::guard::stop(&cluster, &first).await;
    did(&cluster, "retryFailedJobs(runId: $id)", &first).await;
    cluster.until_status(&first, "COMPLETED").await;

    let seen = async |kind: &str| -> BTreeSet<(String, String)> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select distinct old, new from note where kind = $1")
                .bind(kind)
                .fetch_all(&cluster.db)
                .await
                .unwrap();
        rows.into_iter().collect()
    };
    let text = |(from, to): (&str, &str)| (from.to_owned(), to.to_owned());
    let jobs: BTreeSet<_> =
        JobState::TRANSITIONS.iter().map(|(a, b)| text((a.as_str(), b.as_str()))).collect();
    assert_eq!(seen("probe:scenario").await, jobs, "left what is seen, right the table");

    // Runs: what people do is the table of permissions; the rest follows from jobs.
    let mut runs: BTreeSet<_> = RunStatus::ALL
        .iter()
        .flat_map(|&from| RunAction::ALL.iter().map(move |&action| (from, from.permission(action))))
        .filter_map(|(from, permission)| match permission {
            runlane::domain::run::Permission::Becomes(to) => Some(text((from.as_str(), to.as_str()))),
            _ => None,
        })
        .collect();
    runs.extend(
        [("PENDING", "RUNNING"), ("PENDING", "COMPLETED"), ("RUNNING", "COMPLETED"), ("PAUSED", "COMPLETED")]
            .map(text),
    );
    // The guard of the test closes a run that has ended.
    runs.insert(text(("COMPLETED", "FAILED")));
    assert_eq!(seen("run").await, runs);
    cluster.stop().await;
}
