//! The failing network itself.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::support::postgres::empty_database;
use crate::support::proxy::{Harm, Point, Proxy, Strike, Weather};

/// Bounds what must hang; no test passes sooner because of it, or fails.
const SHORT: Duration = Duration::from_millis(300);
/// Bounds what must not.
const LONG: Duration = Duration::from_secs(20);

struct Table {
    db: PgPool,
    proxy: Proxy,
}

impl Table {
    async fn make() -> Self {
        let url = empty_database().await;
        let db = PgPool::connect(&url).await.unwrap();
        sqlx::query("create table t (n int)").execute(&db).await.unwrap();
        Self { db, proxy: Proxy::before(&url).await }
    }

    async fn client(&self) -> PgConnection {
        PgConnection::connect(&self.proxy.url()).await.unwrap()
    }

    async fn rows(&self) -> i64 {
        sqlx::query_scalar("select count(*) from t").fetch_one(&self.db).await.unwrap()
    }
}

async fn insert(client: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("insert into t values ($1)").bind(1).execute(client).await.map(drop)
}

async fn insert_in_transaction(client: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = client.begin().await?;
    insert(&mut transaction).await?;
    transaction.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_before_the_commit_undoes_and_one_after_it_does_not() {
    let table = Table::make().await;
    for in_transaction in [false, true] {
        for (after, rows) in [(false, 0), (true, 1)] {
            for harm in [Harm::Cut, Harm::Reset] {
                sqlx::query("truncate t").execute(&table.db).await.unwrap();
                let strike = Strike::at(Point::Commit("insert into t"));
                let struck = table.proxy.strike(if after { strike.after(harm) } else { strike.before(harm) });
                let mut client = table.client().await;
                let sent = if in_transaction {
                    insert_in_transaction(&mut client).await
                } else {
                    insert(&mut client).await
                };
                assert!(matches!(sent, Err(sqlx::Error::Io(_))), "{sent:?}");
                assert_eq!(struck.count(), 1);
                assert_eq!(table.rows().await, rows, "in a transaction: {in_transaction}, after: {after}");
                // Once only.
                let mut client = table.client().await;
                insert_in_transaction(&mut client).await.unwrap();
                assert_eq!(table.rows().await, rows + 1);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_connection_says_nothing_until_it_is_cut() {
    let table = Table::make().await;
    let struck = table.proxy.strike(Strike::at(Point::Statement("insert into t")).after(Harm::Mute));
    let mut client = table.client().await;
    let mut sent = std::pin::pin!(insert(&mut client));
    assert!(timeout(SHORT, &mut sent).await.is_err(), "no answer comes");
    struck.struck(1).await;
    assert_eq!(table.rows().await, 1, "it was carried out");
    assert_eq!(table.proxy.connections(), 1);
    table.proxy.harm_all(Harm::Cut);
    let error = timeout(LONG, sent).await.expect("the client hears of the cut");
    assert!(matches!(error, Err(sqlx::Error::Io(_))), "{error:?}");
    insert(&mut table.client().await).await.expect("others are not concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_into_a_black_hole_arrives_when_it_is_gone() {
    let table = Table::make().await;
    let mut client = table.client().await;
    insert(&mut client).await.unwrap();
    table.proxy.weather(Weather { blackhole: true, ..Weather::FAIR });
    let mut sent = std::pin::pin!(insert(&mut client));
    assert!(timeout(SHORT, &mut sent).await.is_err());
    assert!(timeout(SHORT, table.client()).await.is_err(), "nor does a new connection get through");
    assert_eq!(table.rows().await, 1);
    table.proxy.weather(Weather::FAIR);
    timeout(LONG, sent).await.expect("it arrives").unwrap();
    assert_eq!(table.rows().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_and_a_low_rate_take_their_time() {
    let table = Table::make().await;
    let mut client = table.client().await;
    insert(&mut client).await.unwrap();
    for weather in [
        Weather { latency: Duration::from_millis(100), ..Weather::FAIR },
        Weather { rate: Some(500), ..Weather::FAIR },
    ] {
        table.proxy.weather(weather);
        let began = tokio::time::Instant::now();
        let text: String =
            sqlx::query_scalar("select repeat('x', 200)").fetch_one(&mut client).await.unwrap();
        assert_eq!(text.len(), 200);
        assert!(began.elapsed() >= Duration::from_millis(200), "{weather:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_are_refused_and_admitted_again() {
    let table = Table::make().await;
    let mut old = table.client().await;
    table.proxy.refuse().await;
    let error = PgConnection::connect(&table.proxy.url()).await.expect_err("nobody listens");
    assert!(
        matches!(&error, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused),
        "{error}"
    );
    insert(&mut old).await.expect("what is connected stays so");
    table.proxy.admit().await;
    insert(&mut table.client().await).await.unwrap();
    assert_eq!(table.rows().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_decides_about_chances() {
    let table = Table::make().await;
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let proxy = Proxy::seeded(&table.proxy.url(), seed).await;
        let strike = Strike::at(Point::Statement("insert into t")).during(Harm::Cut).chance(0.5).times(100);
        let struck = proxy.strike(strike);
        let mut counts = Vec::new();
        for _ in 0..24 {
            let mut client = PgConnection::connect(&proxy.url()).await.unwrap();
            let _ = insert(&mut client).await;
            counts.push(struck.count());
        }
        seen.push(counts);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}
