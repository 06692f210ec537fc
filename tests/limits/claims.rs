//! What one claim takes of the limits.

use std::time::Duration;

use runlane::domain::JobKind;

use crate::queue::support::until_sql;
use crate::support::app::fresh_database;
use crate::support::direct::Direct;

/// An empty queue under these ceilings of jobs in flight, by the limit's name.
async fn under(ceilings: &[(&str, i32)]) -> Direct {
    let direct = Direct::on(&fresh_database().await).await;
    for (name, most) in ceilings {
        sqlx::query("insert into rate_limit (name, in_flight_max) values ($1, $2)")
            .bind(name)
            .bind(most)
            .execute(&direct.db)
            .await
            .unwrap();
    }
    direct
}

#[tokio::test(flavor = "multi_thread")]
async fn what_starts_while_limits_are_locked_is_not_claimed_past_its_own() {
    let direct = under(&[("mock/rater", 1), ("mock/echo", 1)]).await;
    let (node, definition) = (direct.node().await, direct.definition(8).await);
    direct.start(definition, &["mock/rater"], None).await;

    // The claim finds the limit of what waits, and waits for it.
    let mut holder = direct.db.begin().await.unwrap();
    sqlx::query("select from rate_limit where name = 'mock/rater' for update")
        .execute(&mut *holder)
        .await
        .unwrap();
    let claim = {
        let store = direct.store.clone();
        tokio::spawn(async move {
            store.claim_jobs(node, &[(JobKind::ProbeScenario, 8)]).await.unwrap().claims().len()
        })
    };
    let waits = "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                                   and query like '%claim_with_scenarios%')";
    until_sql(&direct.db, "the claim waits", waits).await;
    direct.start(definition, &["mock/echo"], None).await;
    holder.commit().await.unwrap();

    assert_eq!(claim.await.unwrap(), 1, "the one that mock/rater allows");
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 8).await.len(), 1, "the one that mock/echo allows");
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 8).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_no_more_than_its_slots_and_what_each_limit_leaves() {
    let direct = under(&[("mock", 150), ("mock/rater", 40)]).await;
    let (node, definition) = (direct.node().await, direct.definition(8).await);
    for _ in 0..20 {
        direct.start(definition, &["mock/echo", "mock/rater"], None).await;
    }

    // A few slots go one by one, many in quanta: both to less than the limits leave.
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 10).await.len(), 10);
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 70).await.len(), 70);
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 200).await.len(), 70, "up to 150 of the provider");
    let active = "select sum(active) filter (where model = 'mock/rater'), sum(active) from lane";
    let active: (i64, i64) = sqlx::query_as(active).fetch_one(&direct.db).await.unwrap();
    assert_eq!(active, (40, 150));
    assert_eq!(direct.claim(node, JobKind::ProbeScenario, 200).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_a_limit_refuses_to_the_first_lanes_go_to_others_at_once() {
    // The first lanes could give more than they offer, or others have not been looked at.
    for jobs in [8, 3] {
        let direct = under(&[("mock/rater", 40)]).await;
        let (node, definition) = (direct.node().await, direct.definition(jobs).await);
        for model in ["mock/rater", "mock/echo"] {
            for _ in 0..150 {
                direct.start(definition, &[model], None).await;
            }
        }
        let first = direct.store.claim_jobs(node, &[(JobKind::ProbeScenario, 200)]).await.unwrap();
        assert_eq!(first.look_after, Some(Duration::ZERO), "it is told that there is more");
        assert_eq!(first.claims().len(), 40, "only lanes of the limited model were looked at");
        assert_eq!(direct.claim(node, JobKind::ProbeScenario, 160).await.len(), 160);
    }
}
