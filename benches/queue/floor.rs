//! What the same PostgreSQL does for the plainest queue and the plainest client: one table, two indexes, no attempts, no counters
//! and no fences.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::postgres::PgListener;

use crate::stage::Database;

/// Rows that one statement inserts.
const CHUNK: usize = 10_000;

#[derive(Deserialize)]
struct Payload {
    n: u64,
}

/// Makes the queue's table.
pub async fn create(database: &Database) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "create table item (
             id          bigint generated always as identity primary key,
             queue       text not null default 'default',
             state       smallint not null default 0,
             priority    smallint not null default 0,
             run_at      timestamptz not null default now(),
             claims      smallint not null default 0,
             claimed_by  text,
             claimed_at  timestamptz,
             finished_at timestamptz,
             payload     jsonb not null
         );
         create index item_waiting on item (queue, priority, run_at, id) where state = 0",
    )
    .execute(&database.db)
    .await?;
    Ok(())
}

/// Inserts so many items, numbered from 0; returns how long that took.
pub async fn insert(database: &Database, n: u64) -> anyhow::Result<Duration> {
    let payloads: Vec<String> = (0..n).map(|i| format!(r#"{{"n": {i}}}"#)).collect();
    let begun = Instant::now();
    for chunk in payloads.chunks(CHUNK) {
        let sql = "insert into item (payload) select p::jsonb from unnest($1::text[]) as p";
        let done = sqlx::query(sql).bind(chunk).execute(&database.db).await?;
        ensure!(done.rows_affected() == chunk.len() as u64, "{} rows are missing", chunk.len());
    }
    Ok(begun.elapsed())
}

/// How long it is from just before an item is sent to an idle queue until it is claimed, so many times: the sender commits and
/// notifies in one statement, and a worker listens and claims on a connection of its own.
pub async fn pick_up(database: &Database, n: usize) -> anyhow::Result<Vec<Duration>> {
    let (claimed, mut claims) = tokio::sync::mpsc::unbounded_channel();
    let mut listener = PgListener::connect_with(&database.db).await?;
    listener.listen("item").await?;
    let (mut worker, mut sender) = (database.db.acquire().await?, database.db.acquire().await?);
    let work = tokio::spawn(async move {
        let mut held: Vec<i64> = Vec::new();
        loop {
            listener.recv().await?;
            let items: Vec<(i64, String)> =
                sqlx::query_as(TURN).bind(&held).bind(1_i64).fetch_all(&mut *worker).await?;
            held = items.into_iter().map(|(id, _)| id).collect();
            if claimed.send((Instant::now(), held.len())).is_err() {
                return Ok::<_, anyhow::Error>(());
            }
        }
    });
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        sqlx::query("with sent as (insert into item (payload) values ('{}')) select pg_notify('item', '')")
            .execute(&mut *sender)
            .await?;
        let (at, items) = claims.recv().await.context("the worker has failed")?;
        ensure!(items == 1, "{items} items were claimed instead of one");
        times.push(at - begun);
    }
    work.abort();
    Ok(times)
}

/// Completes the last batch and claims the next in one statement.
const TURN: &str = "
    with done as (
        update item set state = 2, finished_at = now() where id = any ($1) and state = 1
    )
    update item set state = 1, claims = claims + 1, claimed_by = 'bench', claimed_at = now()
     where id = any (array(
        select id from item where state = 0 and queue = 'default' and run_at <= now()
         order by priority, run_at, id limit $2 for update skip locked))
    returning id, payload::text";

/// Drains a queue of items 0 to n - 1 with so many clients; returns how long that took.
pub async fn drain(database: &Database, n: u64, clients: usize, batch: i64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(turns(database.db.clone(), batch));
    }
    let mut sum = 0;
    while let Some(done) = tasks.join_next().await {
        sum += done??;
    }
    let time = begun.elapsed();
    ensure!(sum == n * (n - 1) / 2, "the items add up to {sum}");
    let left = database.number("select count(*) from item where state <> 2 or claims <> 1").await?;
    ensure!(left == 0, "{left} items are not completed once");
    Ok(time)
}

/// Returns the sum of the items' numbers.
async fn turns(pool: PgPool, batch: i64) -> anyhow::Result<u64> {
    let mut connection = pool.acquire().await?;
    let mut held: Vec<i64> = Vec::new();
    let mut sum = 0;
    loop {
        let items: Vec<(i64, String)> =
            sqlx::query_as(TURN).bind(&held).bind(batch).fetch_all(&mut *connection).await?;
        if items.is_empty() {
            return Ok(sum);
        }
        for (_, payload) in &items {
            sum += serde_json::from_str::<Payload>(payload)?.n;
        }
        held = items.into_iter().map(|(id, _)| id).collect();
    }
}
