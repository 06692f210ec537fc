//! For each duty one node leads, and what an earlier leader still writes is refused.

use runlane::domain::leader::{Duty, Term};
use runlane::store::{Error, Store};
use sqlx::PgPool;
use uuid::Uuid;

use super::register;
use crate::queue::support::{Node, quick, until_sql};
use crate::support::app::Cluster;

/// What a leader's fenced write answers.
async fn write(store: &Store, term: Term) -> Result<u64, Error> {
    store.settle_closed_lanes(term, 10).await
}

async fn row(db: &PgPool) -> (i64, Uuid) {
    sqlx::query_as("select epoch, node_id from leadership where duty = 'staleness'")
        .fetch_one(db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_next_begins_a_new_epoch_when_its_session_ends() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let (a, b) = (register(&store).await, register(&store).await);
    let mut first = store.take_leadership(Duty::Staleness, a).await.unwrap().expect("nobody leads");
    assert_eq!(row(&cluster.db).await, (1, a));
    assert!(!store.leadership_is_free(Duty::Staleness, b).await.unwrap());
    assert!(store.take_leadership(Duty::Staleness, b).await.unwrap().is_none(), "one at a time");
    assert!(store.take_leadership(Duty::Maintenance, b).await.unwrap().is_some(), "duties are apart");
    first.check().await.unwrap();
    write(&store, first.term()).await.unwrap();

    first.resign().await.unwrap();
    until_sql(
        &cluster.db,
        "ended",
        "select not exists (select from pg_stat_activity a join leadership l on l.backend_pid = a.pid
                             where l.duty = 'staleness' and a.backend_start = l.backend_start)",
    )
    .await;
    assert!(store.leadership_is_free(Duty::Staleness, b).await.unwrap());
    let second = store.take_leadership(Duty::Staleness, b).await.unwrap().expect("there is room");
    assert_eq!((second.term().epoch, row(&cluster.db).await), (2, (2, b)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_node_is_gone_is_followed_and_its_writes_change_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    // Frozen: its session lives on, its node was found dead.
    let (frozen, b) = (runlane::domain::ids::new_id(), register(&store).await);
    let mut first = store.take_leadership(Duty::Staleness, frozen).await.unwrap().expect("nobody leads");
    assert!(store.leadership_is_free(Duty::Staleness, b).await.unwrap(), "its session is ended");
    let second = store.take_leadership(Duty::Staleness, b).await.unwrap().expect("there is room");
    assert!(matches!(write(&store, first.term()).await, Err(Error::Deposed)));
    assert!(first.check().await.is_err());
    write(&store, second.term()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leader_begins_while_a_write_of_the_one_before_is_on_its_way() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let (a, b) = (register(&store).await, register(&store).await);
    let first = store.take_leadership(Duty::Staleness, a).await.unwrap().expect("nobody leads");
    let mut writing = cluster.db.begin().await.unwrap();
    sqlx::query("select assert_leader('staleness', $1)")
        .bind(first.term().epoch)
        .execute(&mut *writing)
        .await
        .unwrap();
    sqlx::query("select pg_terminate_backend(backend_pid, 5000) from leadership")
        .execute(&cluster.db)
        .await
        .unwrap();
    let next = {
        let store = store.clone();
        tokio::spawn(async move {
            store.take_leadership(Duty::Staleness, b).await.unwrap().expect("there is room")
        })
    };
    until_sql(
        &cluster.db,
        "waiting",
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%take_leadership%')",
    )
    .await;
    assert_eq!(row(&cluster.db).await, (1, a));
    writing.commit().await.unwrap();
    assert_eq!(next.await.unwrap().term().epoch, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_soon_after_the_leader_is_killed_or_cut_off() {
    let cluster = Cluster::api_only(&[]).await;
    let settings = quick(&[("RUNLANE_MAINTENANCE_INTERVAL", "200ms")]);
    let nodes = [Node::start(&cluster, "work", &settings), Node::start(&cluster, "work", &settings)];
    let leads = "select exists (select from leadership l join node n on n.id = l.node_id
                                 join pg_stat_activity a on a.pid = l.backend_pid
                                                        and a.backend_start = l.backend_start
                                where l.duty = 'maintenance' and l.epoch > ";
    until_sql(&cluster.db, "led", &format!("{leads} 0)")).await;
    until_sql(&cluster.db, "there", "select count(*) = 2 from node").await;

    // The session alone ends: somebody follows, with a new epoch.
    let epoch: i64 = sqlx::query_scalar("select epoch from leadership where duty = 'maintenance'")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    sqlx::query("select pg_terminate_backend(backend_pid) from leadership where duty = 'maintenance'")
        .execute(&cluster.db)
        .await
        .unwrap();
    until_sql(&cluster.db, "led again", &format!("{leads} {epoch})")).await;

    // The leading process is killed: the other follows.
    let (epoch, name): (i64, String) = sqlx::query_as(
        "select epoch, n.name from leadership l join node n on n.id = l.node_id where l.duty = 'maintenance'",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    let [one, other] = nodes;
    let is_leader = |node: &Node| name.ends_with(&format!(":{}", node.pid()));
    assert!(is_leader(&one) != is_leader(&other));
    let (leader, standby) = if is_leader(&one) { (one, other) } else { (other, one) };
    drop(leader);
    until_sql(&cluster.db, "led by the other", &format!("{leads} {epoch})")).await;
    let leading: String = sqlx::query_scalar(
        "select n.name from leadership l join node n on n.id = l.node_id where l.duty = 'maintenance'",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert!(leading.ends_with(&format!(":{}", standby.pid())));
    drop(standby);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_followed_once_its_lease_is_over() {
    let cluster = Cluster::api_only(&[]).await;
    let settings = quick(&[
        ("RUNLANE_MAINTENANCE_INTERVAL", "200ms"),
        ("RUNLANE_LEASE_MS", "3000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "300"),
    ]);
    let frozen = Node::start(&cluster, "work", &settings);
    let led = "select exists (select from leadership l join node n on n.id = l.node_id
                               where l.duty = 'maintenance' and n.name like '%:";
    until_sql(&cluster.db, "led", &format!("{led}{}')", frozen.pid())).await;
    let other = Node::start(&cluster, "work", &settings);
    frozen.signal(nix::sys::signal::Signal::SIGSTOP);
    until_sql(&cluster.db, "led by the other", &format!("{led}{}')", other.pid())).await;
    frozen.signal(nix::sys::signal::Signal::SIGCONT);
    // It finds out, and is a node again, but no leader.
    frozen.until_logged("this node's lease was lost");
    assert!(
        sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(format!("{led}{}')", other.pid())))
            .fetch_one(&cluster.db)
            .await
            .unwrap()
    );
    drop((frozen, other));
    cluster.stop().await;
}
