//! What the same PostgreSQL does for the plainest table and the plainest client: what no queue can beat.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::PgPool;

use crate::stage::Database;

/// Makes the table for [`insert_plain`].
pub async fn create_plain(database: &Database) -> anyhow::Result<()> {
    let sql = "create table plain (id bigint generated always as identity primary key, item bigint not null)";
    sqlx::raw_sql(sql).execute(&database.db).await?;
    Ok(())
}

/// Inserts `n` rows by one statement from one array; returns how long that took.
pub async fn insert_plain(database: &Database, n: u64) -> anyhow::Result<Duration> {
    let items: Vec<i64> = (0..i64::try_from(n)?).collect();
    let begun = Instant::now();
    let done = sqlx::query("insert into plain (item) select unnest($1::bigint[])")
        .bind(&items)
        .execute(&database.db)
        .await?;
    let time = begun.elapsed();
    ensure!(done.rows_affected() == n, "{} rows instead of {n}", done.rows_affected());
    Ok(time)
}

/// Makes a queue that is one table with one index, with `n` items.
pub async fn create_queue(database: &Database, n: i32) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "create table item (
             id     bigint generated always as identity primary key,
             state  smallint not null default 0,
             claims int not null default 0,
             run_at timestamptz not null default now()
         ) with (fillfactor = 80);
         create index item_waiting on item (run_at, id) where state = 0",
    )
    .execute(&database.db)
    .await?;
    sqlx::query("insert into item (state) select 0 from generate_series(1, $1)")
        .bind(n)
        .execute(&database.db)
        .await?;
    database.settle().await
}

/// Completes the last batch and claims the next in one statement.
const TURN: &str = "
    with done as (
        update item set state = 2 where id = any ($1) and state = 1
    ), next as materialized (
        select id from item where state = 0 order by run_at, id limit $2 for update skip locked
    )
    update item set state = 1, claims = claims + 1 where id = any (array(select id from next)) returning id";

/// Drains the queue with so many clients; returns how long that took.
pub async fn drain(database: &Database, n: i32, clients: usize, batch: i64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(turns(database.db.clone(), batch));
    }
    let mut completed = 0;
    while let Some(done) = tasks.join_next().await {
        completed += done??;
    }
    let time = begun.elapsed();
    ensure!(completed == usize::try_from(n)?, "{completed} items instead of {n}");
    let left = database.number("select count(*) from item where state <> 2 or claims <> 1").await?;
    ensure!(left == 0, "{left} items are not completed once");
    Ok(time)
}

async fn turns(pool: PgPool, batch: i64) -> sqlx::Result<usize> {
    let mut connection = pool.acquire().await?;
    let mut held: Vec<i64> = Vec::new();
    let mut completed = 0;
    loop {
        completed += held.len();
        held = sqlx::query_scalar(TURN).bind(&held).bind(batch).fetch_all(&mut *connection).await?;
        if held.is_empty() {
            return Ok(completed);
        }
    }
}
