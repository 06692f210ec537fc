//! The database is busy, gone, or has become another.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::app::Roles;
use runlane::embedded;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, timeout};

use super::support::{PATIENT, assert_exact, number, until_locked_out};
use crate::support::app::{Answer, Cluster, PATIENCE};
use crate::support::postgres::{scratch, throw_away_in};
use crate::support::proxy::{Harm, Proxy, Weather};

const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";

/// Panics unless it says that the database is away, and when to come again.
fn is_unavailable(answer: &Answer, why: &str) {
    assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{}", answer.body);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.refusal()["retryAfterMs"], 1_000);
    let message = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains(why) && message.contains("1000 ms"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_free_connection_says_so_and_when_to_come_again() {
    let cluster = Cluster::api_only(&[
        ("RUNLANE_API_POOL_SIZE", "2"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "200"),
        ("RUNLANE_DATABASE_RETRIES", "2"),
        ("RUNLANE_DATABASE_RETRY_DELAY_MS", "50"),
        ("RUNLANE_LOCK_TIMEOUT_MS", "60000"),
        ("RUNLANE_STATEMENT_TIMEOUT_MS", "60000"),
    ])
    .await;
    let mut holder = PgConnection::connect(&cluster.url).await.unwrap();
    holder.execute("begin; lock table definition").await.unwrap();
    let ask = "{ definitions(first: 1) { totalCount } }";
    let (held, refused) = tokio::join!(
        async { tokio::join!(cluster.user(ask, json!({})), cluster.user(ask, json!({}))) },
        async {
            // Both connections wait for the lock.
            until_locked_out(&cluster.db, 2).await;
            let began = Instant::now();
            let refused = cluster.user("{ queueStatus { totalPending } }", json!({})).await;
            let took = began.elapsed();
            holder.execute("rollback").await.unwrap();
            (refused, took)
        }
    );
    is_unavailable(&refused.0, "No connection to the database");
    let tries = Duration::from_millis(3 * 200 + 2 * 50);
    assert!(refused.1 >= tries, "it was tried three times: {:?}", refused.1);
    held.0.data();
    held.1.data();
    cluster.user("{ queueStatus { totalPending } }", json!({})).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_a_killed_server_and_go_on_when_it_is_back() {
    let mode = std::fs::Permissions::from_mode(0o711);
    let home = tempfile::Builder::new().prefix("runlane").permissions(mode).tempdir_in(scratch()).unwrap();
    let settings = throw_away_in(home.path().join("data"));
    let mut server = embedded::Cluster::start(&settings).await.unwrap();
    let roles = Roles { serves: true, executes: true };
    let numbers = [("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "500"), ("RUNLANE_POLL_INTERVAL_MS", "200")];
    let cluster = Cluster::on(server.url().to_owned(), &numbers, roles).await;
    let definition = cluster.definition(200).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=50"], json!({})).await;
    for round in 1..=2 {
        cluster.until(&run, "further", |s| s["progress"]["completed"].as_i64() > Some(round * 30)).await;
        kill(Pid::from_raw(server.pid().cast_signed()), Signal::SIGKILL).unwrap();
        server.exited().await.unwrap();
        let input = json!({ "input": { "definitionId": definition, "models": ["mock/echo"] } });
        let down = cluster.user(START, input).await;
        assert_eq!((down.status, down.code()), (503, "UNAVAILABLE"), "{}", down.body);
        drop(server);
        server = embedded::Cluster::start(&settings).await.unwrap();
    }
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(state["progress"]["completed"], 200, "{state:#}");
    assert_eq!(number(&cluster.db, "select count(*) from run").await, 1, "what was refused was not started");
    assert_exact(&cluster.db).await;
    cluster.stop().await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_become_read_only_is_left_for_the_one_that_took_over() {
    let (cluster, proxy) = Cluster::behind_proxy(&[("RUNLANE_POLL_INTERVAL_MS", "200")]).await;
    let definition = cluster.definition(3).await;
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&cluster.db).await.unwrap();
    let read_only = async |on: &str| {
        let sql = format!(r#"alter database "{database}" set default_transaction_read_only = {on}"#);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&cluster.db).await.unwrap();
    };
    read_only("on").await;
    // Whoever connects now finds a server that takes no changes, as a standby is one.
    proxy.harm_all(Harm::Cut);
    let refused = cluster.start_run(&definition, &["mock/echo"], json!({})).await;
    is_unavailable(&refused, "The database is a standby");
    read_only("off").await;
    // The sessions that were opened meanwhile stay read-only for ever: whoever kept one would never write again.
    let run = timeout(PATIENCE, async {
        loop {
            let answer = cluster.start_run(&definition, &["mock/echo"], json!({})).await;
            if answer.status == 200 {
                return answer.data()["startRun"]["id"].as_str().unwrap().to_owned();
            }
        }
    })
    .await
    .expect("it writes again");
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_sessions_is_away_whatever_its_reason() {
    let (cluster, proxy) = Cluster::behind_proxy(&[]).await;
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&cluster.db).await.unwrap();
    let elsewhere: PgConnectOptions = cluster.url.parse().unwrap();
    let mut admin = PgConnection::connect_with(&elsewhere.database("postgres")).await.unwrap();
    let mut allow = async |connections: bool| {
        let sql = format!(r#"alter database "{database}" allow_connections {connections}"#);
        admin.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    };
    allow(false).await;
    proxy.harm_all(Harm::Cut);
    let refused = cluster.user("{ queueStatus { totalPending } }", json!({})).await;
    is_unavailable(&refused, "The database does not answer");
    allow(true).await;
    cluster.user("{ queueStatus { totalPending } }", json!({})).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_hole_and_resets_it_goes_on_and_leaks_no_connection() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(60).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=100"], json!({})).await;
    cluster.until(&run, "begun", |s| s["progress"]["completed"].as_i64() > Some(8)).await;
    proxy.weather(Weather { blackhole: true, ..Weather::FAIR });
    let answer = cluster.user("{ queueStatus { totalPending } }", json!({})).await;
    assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{}", answer.body);
    proxy.weather(Weather {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        ..Weather::FAIR
    });
    for _ in 0..3 {
        proxy.harm_all(Harm::Reset);
        cluster.user("{ queueStatus { totalPending } }", json!({})).await.data();
    }
    proxy.weather(Weather::FAIR);
    cluster.until_status(&run, "COMPLETED").await;
    assert_exact(&cluster.db).await;
    // The API's pool, the orchestrator's, two for leases, one that listens, and the test's own.
    let backends = "select count(*) from pg_stat_activity
                     where datname = current_database() and application_name like 'runlane%'";
    timeout(PATIENCE, async {
        while number(&cluster.db, backends).await > 8 + 4 + 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("sessions whose client is gone end");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_though_its_database_is_gone() {
    let settings = [
        ("RUNLANE_SHUTDOWN_GRACE_MS", "0"),
        ("RUNLANE_DATABASE_SILENCE_MS", "500"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "300"),
    ];
    let (cluster, proxy) = Cluster::behind_proxy(&settings).await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
    cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
    proxy.refuse().await;
    proxy.harm_all(Harm::Cut);
    let db = cluster.db.clone();
    timeout(Duration::from_secs(60), cluster.stop()).await.expect("it stops");
    let left = "select count(*) from current_job where state = 'active' and claims = 1";
    assert_eq!(number(&db, left).await, 2, "they are their lease's to give back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_though_its_database_is_silent() {
    let settings = [
        ("RUNLANE_SHUTDOWN_GRACE_MS", "200"),
        ("RUNLANE_STATEMENT_TIMEOUT_MS", "1000"),
        ("RUNLANE_LOCK_TIMEOUT_MS", "500"),
        ("RUNLANE_DATABASE_SILENCE_MS", "500"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "300"),
    ];
    for with_jobs in [true, false] {
        let (cluster, proxy) = Cluster::behind_proxy(&settings).await;
        if with_jobs {
            let definition = cluster.definition(2).await;
            let run = cluster.run(&definition, &["mock/echo?delayMs=600000"], json!({})).await;
            cluster.until(&run, "active", |s| s["progress"]["active"] == 2).await;
        }
        proxy.weather(Weather { blackhole: true, ..Weather::FAIR });
        // Nothing is ever answered: not on what is connected, nor on what connects.
        timeout(Duration::from_secs(20), cluster.stop()).await.expect("it stops");
        drop(proxy);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_server_that_has_everything_loses_nothing() {
    let mode = || std::fs::Permissions::from_mode(0o711);
    let home =
        || tempfile::Builder::new().prefix("runlane").permissions(mode()).tempdir_in(scratch()).unwrap();
    let (first_home, second_home) = (home(), home());
    let first = embedded::Cluster::start(&throw_away_in(first_home.path().join("data"))).await.unwrap();
    let proxy = Proxy::before(first.url()).await;
    let through = proxy.url();
    let settings = [("DATABASE_URL", through.as_str()), ("RUNLANE_POLL_INTERVAL_MS", "200")];
    let roles = Roles { serves: true, executes: true };
    let cluster = Cluster::on(first.url().to_owned(), &settings, roles).await;
    let definition = cluster.definition(80).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=50"], json!({})).await;
    cluster.until(&run, "begun", |s| s["progress"]["completed"].as_i64() > Some(10)).await;
    // Another server, elsewhere, with all that the first has confirmed: as a synchronous standby that took over.
    let from = first.data().to_owned();
    cluster.db.close().await;
    first.stop().await.unwrap();
    let to = second_home.path().join("data");
    std::fs::DirBuilder::new().mode(0o711).create(&to).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&from).arg(to.join("postgres")).status().unwrap();
    assert!(copied.success());
    let second = embedded::Cluster::start(&throw_away_in(to)).await.unwrap();
    proxy.redirect(second.url());

    let state = timeout(PATIENCE, async {
        loop {
            let answer = cluster
                .admin(
                    "query($id: ID!) { run(id: $id) { status progress { completed } } }",
                    json!({ "id": run }),
                )
                .await;
            match answer.status {
                200 if answer.data()["run"]["status"] == "COMPLETED" => break answer.data()["run"].clone(),
                200 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => assert_eq!(answer.code(), "UNAVAILABLE"),
            }
        }
    })
    .await
    .expect("it goes on there");
    assert_eq!(state["progress"]["completed"], 80);
    let db = sqlx::PgPool::connect(second.url()).await.unwrap();
    assert_exact(&db).await;
    db.close().await;
    cluster.stop().await;
    second.stop().await.unwrap();
}
