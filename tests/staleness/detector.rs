//! What the detector says and does, step by step, under the test's control.

use runlane::domain::JobKind;
use runlane::store::Error;
use serde_json::{Value, json};

use super::{Detector, audited, definition, number, said, sql};
use crate::queue::support::{assert_books_balance, jobs, outcomes};
use crate::support::app::Cluster;

/// Makes every waiting probe this much older.
async fn age_waiting(cluster: &Cluster, minutes: i32) {
    sql(
        cluster,
        &format!("update job set run_at = run_at - interval '{minutes} min' where state = 'pending'"),
    )
    .await;
}

/// Claims jobs for the detector's node, `minutes` ago.
async fn claim(cluster: &Cluster, detector: &Detector, n: u32, minutes: i32) {
    let slots = [(JobKind::ProbeScenario, n)];
    let claims = detector.store.claim_jobs(detector.node, &slots).await.unwrap().claims();
    assert_eq!(claims.len(), n as usize);
    sql(cluster, &format!("update claim set claimed_at = claimed_at - interval '{minutes} min'")).await;
}

async fn run(cluster: &Cluster, n: usize, lifecycle: Value) -> String {
    let definition = definition(cluster, n, lifecycle).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_warned_about_at_80_percent_and_reported_at_100_once_each() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    run(&cluster, 5, json!({})).await;
    age_waiting(&cluster, 47).await;
    assert_eq!(detector.waiting(10).await.unwrap(), []);
    age_waiting(&cluster, 2).await;
    // Bounded: three jobs a step, and each once.
    assert_eq!(said(&detector.waiting(3).await.unwrap()), [("waiting", "warning", "REPORT", 3)]);
    assert_eq!(said(&detector.waiting(3).await.unwrap()), [("waiting", "warning", "REPORT", 2)]);
    assert_eq!(detector.waiting(3).await.unwrap(), []);
    age_waiting(&cluster, 12).await;
    assert_eq!(said(&detector.waiting(9).await.unwrap()), [("waiting", "stale", "REPORT", 5)]);
    assert_eq!(detector.waiting(9).await.unwrap(), []);
    let all: Vec<i64> =
        sqlx::query_scalar("select id from current_job order by id").fetch_all(&cluster.db).await.unwrap();
    assert_eq!(audited(&cluster, "staleness.warn").await, all);
    assert_eq!(audited(&cluster, "staleness.report").await, all);
    assert_eq!(
        number(&cluster, "select sum(pending)::bigint from lane").await,
        5,
        "a report changes nothing"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_when_it_is_first_seen_is_not_warned_about_besides() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    run(&cluster, 3, json!({})).await;
    age_waiting(&cluster, 61).await;
    sql(
        &cluster,
        "update job set run_at = run_at + interval '10 min' where id = (select max(id) from current_job)",
    )
    .await;
    assert_eq!(
        said(&detector.waiting(100).await.unwrap()),
        [("waiting", "stale", "REPORT", 2), ("waiting", "warning", "REPORT", 1)]
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stale_while_it_is_paused_and_a_pause_starts_the_clock_anew() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let run = run(&cluster, 2, json!({ "maxDurationMinutes": 1 })).await;
    let control = async |what: &str| {
        let query = format!("mutation($id: ID!) {{ {what}(id: $id) {{ id }} }}");
        cluster.user(&query, json!({ "id": run })).await.data();
    };
    let queue = async |what: &str| {
        cluster.admin(&format!("mutation {{ {what} {{ isPaused }} }}"), json!({})).await.data();
    };
    sql(&cluster, "update run set status = 'RUNNING', started_at = clock_timestamp() - interval '2 min'")
        .await;
    age_waiting(&cluster, 61).await;
    let health = "select count(*) from v_task_staleness_monitoring where health <> 'ok'";
    assert_eq!(number(&cluster, health).await, 3, "two jobs and the run");

    control("pauseRun").await;
    assert_eq!((detector.waiting(9).await.unwrap(), detector.runs().await.unwrap()), (vec![], vec![]));
    assert_eq!(number(&cluster, health).await, 0);
    control("resumeRun").await;
    assert_eq!((detector.waiting(9).await.unwrap(), detector.runs().await.unwrap()), (vec![], vec![]));
    assert_eq!(number(&cluster, health).await, 0);
    sql(
        &cluster,
        "update lane set resumed_at = resumed_at - interval '61 min'; update run set resumed_at = resumed_at - interval '61 min'",
    )
    .await;

    // A lane that is held waits for a person as well; its run goes on.
    sql(&cluster, "update lane set held_at = clock_timestamp(), hold_reason = 'x', hold_fingerprint = 'x'")
        .await;
    assert_eq!(detector.waiting(9).await.unwrap(), []);
    assert_eq!(number(&cluster, health).await, 1, "the run");
    sql(&cluster, "update lane set held_at = null, hold_reason = null, hold_fingerprint = null").await;
    assert_eq!(detector.waiting(9).await.unwrap(), []);
    sql(&cluster, "update lane set resumed_at = resumed_at - interval '61 min'").await;

    queue("pauseQueue").await;
    assert_eq!((detector.waiting(9).await.unwrap(), detector.runs().await.unwrap()), (vec![], vec![]));
    assert_eq!(number(&cluster, health).await, 0);
    queue("resumeQueue").await;
    assert_eq!((detector.waiting(9).await.unwrap(), detector.runs().await.unwrap()), (vec![], vec![]));
    assert_eq!(number(&cluster, health).await, 0);

    sql(&cluster, "update queue_state set resumed_at = resumed_at - interval '61 min'").await;
    assert_eq!(number(&cluster, health).await, 3);
    assert_eq!(said(&detector.waiting(9).await.unwrap()), [("waiting", "stale", "REPORT", 2)]);
    assert_eq!(said(&detector.runs().await.unwrap()), [("run", "stale", "REPORT", 0)]);
    assert_eq!(detector.runs().await.unwrap(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_next_attempt_becomes_due_by_requeue_and_nothing_else_changes() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let lifecycle = json!({ "maxWaitingForRetryMinutes": 5, "stalenessAction": "REQUEUE" });
    let run = run(&cluster, 2, lifecycle).await;
    claim(&cluster, &detector, 2, 0).await;
    sql(
        &cluster,
        "select end_attempts(node_id, array[id], array[claims], array['throttled']::attempt_outcome[], array[7200000],
                array['rate_limit'], array['slow down'], array[true], array[null::text], array[null::jsonb],
                array[null::jsonb], array[false], array[false]) from current_job where state = 'active'",
    )
    .await;
    assert_eq!(detector.waiting(9).await.unwrap(), []);
    sql(
        &cluster,
        "update job set waits_since = waits_since - interval '6 min' where id = (select min(id) from current_job)",
    )
    .await;
    let before = jobs(&cluster.db, &run).await;
    assert_eq!(said(&detector.waiting(9).await.unwrap()), [("waiting_for_retry", "stale", "REQUEUE", 1)]);
    assert_eq!(detector.waiting(9).await.unwrap(), []);
    let due = "select count(*) from current_job where state = 'pending' and run_at <= clock_timestamp()";
    assert_eq!(number(&cluster, due).await, 1);
    assert_eq!(audited(&cluster, "staleness.requeue").await, [before[0].id]);
    let after = jobs(&cluster.db, &run).await;
    assert_eq!(format!("{before:?}"), format!("{after:?}"), "no count and no state");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_never_moves_a_job_that_is_due_behind_others() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    run(&cluster, 3, json!({ "maxWaitingForDependenciesMinutes": 5, "stalenessAction": "REQUEUE" })).await;
    age_waiting(&cluster, 6).await;
    let places = "select jsonb_agg(run_at order by id)::text from current_job";
    let before: String = sqlx::query_scalar(places).fetch_one(&cluster.db).await.unwrap();
    assert_eq!(said(&detector.waiting(9).await.unwrap()), [("waiting", "stale", "REPORT", 3)]);
    let after: String = sqlx::query_scalar(places).fetch_one(&cluster.db).await.unwrap();
    assert_eq!(before, after);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_process_is_warned_about_and_reported_once_an_epoch() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    run(&cluster, 2, json!({})).await;
    claim(&cluster, &detector, 2, 23).await;
    assert_eq!(detector.active().await.unwrap(), []);
    sql(&cluster, "update claim set claimed_at = claimed_at - interval '2 min'").await;
    assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "warning", "REPORT", 2)]);
    assert_eq!(detector.active().await.unwrap(), []);
    sql(&cluster, "update claim set claimed_at = claimed_at - interval '6 min'").await;
    assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "stale", "REPORT", 2)]);
    assert_eq!(detector.active().await.unwrap(), []);
    assert_eq!(number(&cluster, "select sum(active)::bigint from lane").await, 2, "a report changes nothing");
    detector.store.prune_staleness(detector.term(), 100).await.unwrap();
    assert_eq!(detector.active().await.unwrap(), [], "what is still in process is not forgotten");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_process_is_taken_back_by_requeue_which_is_no_failure_and_only_so_often() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let lifecycle = json!({ "maxStepsInProcessMinutes": 5, "stalenessAction": "REQUEUE" });
    let run = run(&cluster, 1, lifecycle).await;
    for _ in 0..2 {
        claim(&cluster, &detector, 1, 6).await;
        assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "stale", "REQUEUE", 1)]);
        assert_eq!(detector.active().await.unwrap(), []);
        assert_books_balance(&cluster.db).await;
    }
    assert_eq!(outcomes(&cluster.db).await, ["released", "released"]);
    let job = jobs(&cluster.db, &run).await.remove(0);
    assert_eq!((job.state.as_str(), job.failures, job.losses), ("pending", 0, 0));
    assert_eq!(audited(&cluster, "staleness.requeue").await, [job.id, job.id]);
    // Twice was the most: from here on it is reported.
    claim(&cluster, &detector, 1, 6).await;
    assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "stale", "REPORT", 1)]);
    assert_eq!(detector.active().await.unwrap(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_fails_only_where_its_definition_says_so() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let failing = run(&cluster, 3, json!({ "maxDurationMinutes": 5, "autoFailOnTimeout": true })).await;
    let reported = run(&cluster, 3, json!({ "maxDurationMinutes": 5 })).await;
    let young = run(&cluster, 3, json!({ "autoFailOnTimeout": true })).await;
    claim(&cluster, &detector, 1, 0).await;
    sql(&cluster, "update run set status = 'RUNNING', started_at = clock_timestamp() - interval '6 min'")
        .await;
    let mut steps = Vec::new();
    loop {
        let more = detector.runs().await.unwrap();
        if more.is_empty() {
            break;
        }
        steps.extend(more);
    }
    assert_eq!(said(&steps), [("run", "stale", "REPORT", 0), ("run", "stale", "FAIL", 0)]);
    assert_eq!(
        (steps[0].run_id.to_string(), steps[1].run_id.to_string()),
        (reported.clone(), failing.clone())
    );
    let state = cluster.state(&failing).await;
    assert_eq!(state["status"], "FAILED");
    let progress = &state["progress"];
    assert_eq!(
        (
            &progress["pending"],
            progress["active"].as_i64().unwrap() + progress["cancelled"].as_i64().unwrap()
        ),
        (&json!(0), 3),
        "what waited is cancelled, what runs may finish: {progress}"
    );
    for run in [&reported, &young] {
        assert_eq!(cluster.state(run).await["status"], "RUNNING");
    }
    let acts = "select count(*) from audit where actor = 'system' and action in ('staleness.fail_run', 'run.failed')";
    assert_eq!(number(&cluster, acts).await, 2);
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deposed_leader_does_changes_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    let deposed = Detector::begin(&cluster).await;
    let lifecycle = json!({ "maxStepsInProcessMinutes": 5, "maxWaitingForDependenciesMinutes": 5, "maxDurationMinutes": 5,
                            "autoFailOnTimeout": true, "stalenessAction": "REQUEUE" });
    run(&cluster, 3, lifecycle).await;
    claim(&cluster, &deposed, 1, 6).await;
    age_waiting(&cluster, 6).await;
    sql(&cluster, "update run set started_at = clock_timestamp() - interval '6 min'").await;
    sql(&cluster, "select pg_terminate_backend(backend_pid, 5000) from leadership where duty = 'staleness'")
        .await;
    let leader = Detector::begin(&cluster).await;
    let everything =
        "select concat((select jsonb_agg(j) from current_job j), (select jsonb_agg(l) from lane l),
        (select jsonb_agg(a) from audit a), (select jsonb_agg(m) from staleness_mark m),
        (select jsonb_agg(n) from staleness_notice n), (select jsonb_agg(r) from run r))";
    let before: String = sqlx::query_scalar(everything).fetch_one(&cluster.db).await.unwrap();
    assert!(matches!(deposed.waiting(9).await, Err(Error::Deposed)));
    assert!(matches!(deposed.active().await, Err(Error::Deposed)));
    assert!(matches!(deposed.runs().await, Err(Error::Deposed)));
    let thresholds = Some(deposed.term());
    assert!(matches!(deposed.store.set_staleness_thresholds(thresholds, &[]).await, Err(Error::Deposed)));
    let after: String = sqlx::query_scalar(everything).fetch_one(&cluster.db).await.unwrap();
    assert_eq!(before, after);
    assert_eq!(said(&leader.active().await.unwrap()), [("in_process", "stale", "REQUEUE", 1)]);
    cluster.stop().await;
}

/// Reasons of the dead letters, by job.
async fn dead_letters(cluster: &Cluster) -> Vec<(i64, String, String)> {
    sqlx::query_as("select job_id, reason::text, original_state::text from dead_letter order by job_id")
        .fetch_all(&cluster.db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_too_long_becomes_a_dead_letter_where_a_policy_says_so() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let lifecycle = json!({ "maxWaitingForDependenciesMinutes": 5, "stalenessAction": "DLQ" });
    let run = run(&cluster, 4, lifecycle).await;
    age_waiting(&cluster, 6).await;
    sql(&cluster, "update job set run_at = clock_timestamp() where id = (select max(id) from current_job)")
        .await;
    assert_eq!(said(&detector.waiting(2).await.unwrap()), [("waiting", "stale", "DLQ", 2)]);
    assert_eq!(said(&detector.waiting(2).await.unwrap()), [("waiting", "stale", "DLQ", 1)]);
    assert_eq!(detector.waiting(2).await.unwrap(), []);
    let ids: Vec<i64> = jobs(&cluster.db, &run).await.iter().map(|j| j.id).collect();
    let expected: Vec<_> =
        ids[..3].iter().map(|&id| (id, "staleness_timeout".to_owned(), "pending".to_owned())).collect();
    assert_eq!(dead_letters(&cluster).await, expected);
    assert_eq!(audited(&cluster, "staleness.dead_letter").await, ids[..3]);
    let progress = &cluster.state(&run).await["progress"];
    assert_eq!((&progress["pending"], &progress["failed"]), (&json!(1), &json!(3)));
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_process_for_too_long_is_taken_back_and_becomes_a_dead_letter_where_a_policy_says_so() {
    let cluster = Cluster::api_only(&[]).await;
    let detector = Detector::begin(&cluster).await;
    let at_once = run(&cluster, 1, json!({ "maxStepsInProcessMinutes": 5, "autoDlqOnTimeout": true })).await;
    claim(&cluster, &detector, 1, 6).await;
    assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "stale", "DLQ", 1)]);
    assert_eq!(detector.active().await.unwrap(), []);
    let job = jobs(&cluster.db, &at_once).await.remove(0);
    assert_eq!((job.state.as_str(), job.failures, job.losses), ("failed", 0, 0));
    assert_eq!(outcomes(&cluster.db).await, ["released"]);
    assert_eq!(dead_letters(&cluster).await.len(), 1);
    assert_eq!(cluster.state(&at_once).await["status"], "COMPLETED");
    sql(&cluster, "update lane set is_paused = true where is_live").await;

    // What requeues did not help gives up in the end.
    let lifecycle =
        json!({ "maxStepsInProcessMinutes": 5, "stalenessAction": "REQUEUE", "autoDlqOnTimeout": true });
    let in_the_end = run(&cluster, 1, lifecycle).await;
    for does in ["REQUEUE", "REQUEUE", "DLQ"] {
        claim(&cluster, &detector, 1, 6).await;
        assert_eq!(said(&detector.active().await.unwrap()), [("in_process", "stale", does, 1)]);
    }
    let job = jobs(&cluster.db, &in_the_end).await.remove(0);
    assert_eq!((job.state.as_str(), job.claims, job.failures), ("failed", 3, 0));
    assert_eq!(dead_letters(&cluster).await.len(), 2);
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
