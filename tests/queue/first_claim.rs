//! The first claim of a job leaves its row alone; whoever asks finds it active all the same, and its end writes everything.

use runlane::domain::job::Claim;
use runlane::domain::work::AttemptEnd;
use runlane::domain::{AttemptOutcome, CancelMode, JobKind, JobState};
use runlane::store::{Claimed, Contexts, Error, JobChange, RunChange, Store};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::app::fresh_database;
use crate::support::direct::{Direct, end};

fn completed(claim: Claim) -> AttemptEnd {
    end(claim, JobKind::ProbeScenario, AttemptOutcome::Completed)
}

fn released(claim: Claim) -> AttemptEnd {
    end(claim, JobKind::ProbeScenario, AttemptOutcome::Released)
}

/// A queue with one run of `models` × two scenarios, and a node.
async fn queue(models: &[&str]) -> (Direct, Uuid, Uuid) {
    let direct = Direct::on(&fresh_database().await).await;
    let definition = direct.definition(2).await;
    let run = direct.start(definition, models, None).await;
    let node = direct.node().await;
    (direct, node, run)
}

/// The job's own row: state, whether anything was written to it, claims, and its version.
async fn row(db: &PgPool, job: i64) -> (String, bool, i32, String) {
    sqlx::query_as("select state::text, is_fresh, claims, xmin::text from job where id = $1")
        .bind(job)
        .fetch_one(db)
        .await
        .unwrap()
}

/// Where the job stands: state, claims, and whose it is.
async fn stands(db: &PgPool, job: i64) -> (String, i32, Option<Uuid>) {
    sqlx::query_as("select state::text, claims, node_id from any_job where id = $1")
        .bind(job)
        .fetch_one(db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_the_claim_alone_until_the_end_writes_it() {
    let (direct, node, run) = queue(&["mock/echo"]).await;
    let ids: Vec<i64> =
        sqlx::query_scalar("select id from job order by id").fetch_all(&direct.db).await.unwrap();
    let before = row(&direct.db, ids[0]).await;
    let claims = direct.claim(node, JobKind::ProbeScenario, 1).await;
    assert_eq!(claims, [Claim { job_id: ids[0], number: 1 }]);
    assert_eq!(row(&direct.db, ids[0]).await, before, "the row is as it was");
    assert_eq!(stands(&direct.db, ids[0]).await, ("active".into(), 1, Some(node)));
    assert_eq!(stands(&direct.db, ids[1]).await, ("pending".into(), 0, None));
    assert_eq!(direct.violations(false, &[run]).await, []);

    assert_eq!(direct.end(node, completed(claims[0])).await, Some(JobState::Completed));
    let agree: bool = sqlx::query_scalar(
        "select not is_fresh and state = 'completed' and claims = 1 and node_id = $2 and claimed_at < finished_at
           from job where id = $1",
    )
    .bind(ids[0])
    .bind(node)
    .fetch_one(&direct.db)
    .await
    .unwrap();
    assert!(agree, "the end wrote what the claim had");
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_end_it_and_a_second_end_changes_nothing() {
    let (direct, node, run) = queue(&["mock/echo"]).await;
    let other = direct.node().await;
    let brought = direct.store.claim_jobs(node, &[(JobKind::ProbeScenario, 1)]).await.unwrap();
    let (claim, taken_in) = (brought.claims()[0], brought.taken_in.unwrap());
    let waiting = Claim { job_id: claim.job_id + 1, number: 1 };
    let before = row(&direct.db, claim.job_id).await;
    assert_eq!(direct.end(other, completed(claim)).await, None, "another node's");
    for (who, taken_in, what) in [
        (other, taken_in, "another node's, by its number"),
        (node, taken_in + 1, "not one of what it was taken with"),
    ] {
        let ends = [completed(claim)];
        assert_eq!(
            direct.store.end_attempts_in(who, &ends, Some(&[taken_in]), i32::MAX).await.unwrap(),
            [],
            "{what}"
        );
    }
    assert_eq!(direct.end(node, completed(Claim { number: 2, ..claim })).await, None, "a number not given");
    assert_eq!(direct.end(node, completed(waiting)).await, None, "one that waits");
    assert_eq!(row(&direct.db, claim.job_id).await, before);
    assert_eq!(direct.end(node, released(claim)).await, Some(JobState::Pending));
    assert_eq!(direct.end(node, completed(claim)).await, None, "given back");
    assert_eq!(direct.violations(false, &[run]).await, []);
    let again = direct.claim(other, JobKind::ProbeScenario, 1).await[0];
    assert_eq!(again, Claim { number: 2, ..claim }, "it keeps its place");
    assert_eq!(direct.end(node, completed(claim)).await, None, "the first claim's");
    assert_eq!(direct.end(other, completed(again)).await, Some(JobState::Completed));
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_reach_it_like_any_other() {
    let (direct, node, run) = queue(&["mock/echo"]).await;
    let claims = direct.claim(node, JobKind::ProbeScenario, 2).await;
    // Dead letters are made of what waits: a job that a node has does not, though its row says so.
    let buried: Vec<i64> = sqlx::query_scalar("select bury_jobs($1, 'manual_dlq', 'given_up', 'by hand')")
        .bind(claims.iter().map(|c| c.job_id).collect::<Vec<_>>())
        .fetch_all(&direct.db)
        .await
        .unwrap();
    assert!(buried.is_empty(), "none of them waits: {buried:?}");
    direct.force_job(claims[0].job_id, JobChange::Cancel).await;
    let interrupted = direct.store.interrupted(node, &claims).await.unwrap();
    assert_eq!(interrupted.iter().map(|(c, _)| *c).collect::<Vec<_>>(), [claims[0]], "asked to stop");
    assert_eq!(direct.end(node, released(claims[0])).await, Some(JobState::Cancelled));
    assert_eq!(direct.end(node, completed(claims[1])).await, Some(JobState::Completed));
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_its_time_does_not_give_it_away() {
    let (direct, node, run) = queue(&["mock/echo"]).await;
    let claim = direct.claim(node, JobKind::ProbeScenario, 1).await[0];
    sqlx::query("update job set run_at = run_at - interval '1 hour'").execute(&direct.db).await.unwrap();
    let rest = direct.claim(direct.node().await, JobKind::ProbeScenario, 5).await;
    assert_eq!(rest, [Claim { job_id: claim.job_id + 1, number: 1 }], "only the other one waits");
    assert_eq!(stands(&direct.db, claim.job_id).await, ("active".into(), 1, Some(node)));
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_leaves_what_nodes_have() {
    let (direct, node, run) = queue(&["mock/echo", "mock/rater"]).await;
    let claims = direct.claim(node, JobKind::ProbeScenario, 3).await;
    direct.force(run, RunChange::Cancel(CancelMode::Graceful)).await;
    for claim in &claims {
        assert_eq!(stands(&direct.db, claim.job_id).await.0, "active");
    }
    for claim in &claims {
        assert_eq!(direct.end(node, completed(*claim)).await, Some(JobState::Completed));
    }
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ends_of_one_claim_at_once_leave_nothing_of_it() {
    let (direct, node, run) = queue(&["mock/echo", "mock/rater"]).await;
    let mut claims = direct.claim(node, JobKind::ProbeScenario, 4).await;
    claims.sort_by_key(|c| c.job_id);
    let (first, second) = claims.split_at(2);
    // Of two lanes: only the claim is common to both, and the minute in which they are counted.
    let mut held = direct.db.begin().await.unwrap();
    let end = "select count(*) from end_attempts($1, $2, array_fill(1, array[2]), array_fill('completed'::attempt_outcome, array[2]),
                   array_fill(0::bigint, array[2]), array_fill(null::text, array[2]), array_fill(null::text, array[2]),
                   array_fill(null::boolean, array[2]), array_fill(null::text, array[2]), array['{}', '{}']::jsonb[],
                   array_fill(null::jsonb, array[2]), array_fill(false, array[2]), array_fill(false, array[2]),
                   p_turns => array['[]', '[]']::json[], p_latency_ms => array[1, 1])";
    let ids = |claims: &[Claim]| claims.iter().map(|c| c.job_id).collect::<Vec<_>>();
    let ended: i64 = sqlx::query_scalar(end).bind(node).bind(ids(first)).fetch_one(&mut *held).await.unwrap();
    assert_eq!(ended, 2);
    let (db, ids) = (direct.db.clone(), ids(second));
    let other =
        tokio::spawn(
            async move { sqlx::query_scalar::<_, i64>(end).bind(node).bind(ids).fetch_one(&db).await },
        );
    super::support::until_sql(
        &direct.db,
        "the second waits for the first",
        "select exists (select from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock' and query like '%end_attempts%')",
    )
    .await;
    held.commit().await.unwrap();
    assert_eq!(other.await.unwrap().unwrap(), 2);
    let left: i64 = sqlx::query_scalar("select count(*) from claim").fetch_one(&direct.db).await.unwrap();
    assert_eq!(left, 0, "all that was claimed has ended");
    assert_eq!(direct.violations(false, &[run]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_jobs_of_a_lane_share_comes_with_its_first_claim_and_the_run_with_its_own() {
    let (direct, node, run) = queue(&["mock/echo", "mock/other"]).await;
    let context = |claimed: &Claimed| {
        let mut contexts = Contexts::default();
        contexts.learn(claimed.shared.clone());
        contexts
    };
    let claim = async |n| direct.store.claim_jobs(node, &[(JobKind::ProbeScenario, n)]).await.unwrap();

    let first = claim(1).await;
    let second = claim(1).await;
    let third = claim(2).await;
    assert_eq!([first.shared.len(), second.shared.len(), third.shared.len()], [1, 1, 0]);

    // A node that has heard of both asks nothing, and one that came later is told the rest.
    let nothing = sqlx::PgPool::connect_lazy("postgres://nobody@localhost:1/nothing").unwrap();
    let told = async |claimed: &Claimed, store: &Store, contexts: &mut Contexts| {
        store.learn_of(&claimed.first, contexts).await?;
        Ok::<_, Error>(
            contexts
                .first_work(claimed.first.clone())
                .map(|(work, context)| (work.model.unwrap(), context.run_id))
                .collect::<Vec<_>>(),
        )
    };
    let mut knows = context(&first);
    let away = Store::new(nothing);
    assert_eq!(told(&first, &away, &mut knows).await.unwrap(), [("mock/echo".into(), run)]);
    knows.learn(second.shared.clone());
    assert_eq!(told(&second, &away, &mut knows).await.unwrap(), [("mock/other".into(), run)]);
    assert_eq!(told(&third, &away, &mut knows).await.unwrap().len(), 2);
    let mut later = context(&second);
    assert!(
        told(&second, &away, &mut later).await.is_err(),
        "the run is not sent again with each of its lanes"
    );
    assert_eq!(told(&second, &direct.store, &mut later).await.unwrap(), [("mock/other".into(), run)]);
}
