//! Nobody judges a lease that nobody could renew: after a start, a crash or a promotion of the server.

use std::time::Duration;

use runlane::domain::ids;
use runlane::embedded::Cluster as Postgres;
use runlane::store::{Beat, NewNode, Store};
use sqlx::PgPool;
use uuid::Uuid;

use crate::queue::support::until_sql;
use crate::support::app::Cluster;
use crate::support::postgres::{scratch, settings_in};

/// A node whose lease has run out.
async fn dead_node(store: &Store) -> Uuid {
    let id = ids::new_id();
    let node = NewNode {
        id,
        name: "test".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::ZERO).await.unwrap();
    id
}

/// Whether a sweep with this lease takes the node for dead.
async fn is_judged(store: &Store, node: Uuid, lease: Duration) -> bool {
    store.rescue_jobs(lease).await.unwrap();
    let left: bool = sqlx::query_scalar("select exists (select from node where id = $1)")
        .bind(node)
        .fetch_one(store.pool())
        .await
        .unwrap();
    !left
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_judged_within_one_lease_of_a_promotion() {
    let cluster = Cluster::api_only(&[]).await;
    let store = Store::new(cluster.db.clone());
    let node = dead_node(&store).await;
    // What a promoted standby has of an unlogged table.
    sqlx::query("truncate lease_watch").execute(&cluster.db).await.unwrap();
    let lease = Duration::from_millis(1_500);
    assert!(!is_judged(&store, node, lease).await, "the first look begins the wait");
    assert!(!is_judged(&store, node, lease).await);
    until_sql(
        &cluster.db,
        "over",
        "select bool_and(since < clock_timestamp() - interval '1.5 s') from lease_watch",
    )
    .await;
    assert!(is_judged(&store, node, lease).await);
    assert_eq!(store.renew_lease(node, lease).await.unwrap(), Beat::Lost);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_judged_within_one_lease_of_a_crash_of_the_server() {
    let home = tempfile::Builder::new()
        .prefix("runlane")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir_in(scratch())
        .unwrap();
    let postgres = Postgres::start(&settings_in(home.path().join("data"))).await.unwrap();
    let db = PgPool::connect(postgres.url()).await.unwrap();
    runlane::store::migrate(&db).await.unwrap();
    let store = Store::new(db.clone());
    let node = dead_node(&store).await;
    let mut victim = db.acquire().await.unwrap();
    let mut witness = db.acquire().await.unwrap();
    let (pid, started): (i32, String) =
        sqlx::query_as("select pg_backend_pid(), pg_postmaster_start_time()::text")
            .fetch_one(&mut *victim)
            .await
            .unwrap();
    // One killed backend: the server throws all sessions out and recovers, and its start time stays what it was.
    // Until it has seen that one die it admits sessions as ever, so another waits to be thrown out.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    sqlx::query("select pg_sleep(60)").execute(&mut *witness).await.expect_err("all sessions are thrown out");
    drop((victim, witness));
    db.close().await;
    let deadline = tokio::time::Instant::now() + crate::support::app::PATIENCE;
    let db = loop {
        match PgPool::connect(postgres.url()).await {
            Ok(db) if sqlx::query("select from job").execute(&db).await.is_ok() => break db,
            _ => assert!(tokio::time::Instant::now() < deadline, "it does not recover"),
        }
    };
    let store = Store::new(db.clone());
    let now: String =
        sqlx::query_scalar("select pg_postmaster_start_time()::text").fetch_one(&db).await.unwrap();
    assert_eq!(now, started);
    // A lease that the server's start is well past, and its recovery is not.
    until_sql(&db, "past", "select pg_postmaster_start_time() < clock_timestamp() - interval '2 s'").await;
    assert!(!is_judged(&store, node, Duration::from_secs(2)).await);
    until_sql(&db, "over", "select bool_and(since < clock_timestamp() - interval '2 s') from lease_watch")
        .await;
    assert!(is_judged(&store, node, Duration::from_secs(2)).await);
    db.close().await;
    postgres.stop().await.unwrap();
}
