//! Claims while a million finished jobs go into the archive beside them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use runlane::config::ArchivePolicy;
use runlane::config::Config;
use runlane::domain::{JobKind, ids};
use runlane::store::{NewNode, PoolSettings, Store, connect};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::driver::{Answer, completed};
use crate::fill::{self, Fill};
use crate::report::{Report, figure, heading, percentiles, quantile, rate};
use crate::scale::Scale;
use crate::stage::{Database, Stage, serve, stop};

/// Jobs of one claim.
const BATCH: u32 = 8;
/// How much of a claim's p99 the archive may add.
const SLOWER_AT_MOST: f64 = 1.2;

/// Times claims with and without the archive's steps beside them, in turns, so that others' work meets both alike.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("claims while {} finished jobs are archived", scale.stored));
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    stop(app).await;
    let turns = scale.rounds * 2;
    let claims = scale.requests / 2;
    let waiting = i32::try_from((2 * turns + 1) * claims)? * i32::try_from(BATCH)?;
    Fill::waiting((waiting / 10 + 1) * 10, 10).store(&database).await?;
    finished(&database, scale.stored).await?;
    let hot_before = hot_bytes(&database).await?;

    let store = open(&database)?;
    let node = NewNode {
        id: ids::new_id(),
        name: "bench".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(3_600)).await?;
    let (mut quiet, mut beside, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    // The first claims of a connection are like no others.
    time_claims(&store, node.id, claims).await?;
    for _ in 0..turns {
        quiet.extend(time_claims(&store, node.id, claims).await?);
        let enough = CancellationToken::new();
        let archive = tokio::spawn(archive(open(&database)?, enough.clone(), None));
        beside.extend(time_claims(&store, node.id, claims).await?);
        enough.cancel();
        steps.extend(archive.await??);
    }
    figure("a claim, nothing else going on", &percentiles(&quiet));
    figure("a claim, beside the archive", &percentiles(&beside));
    let (before, after) = (quantile(&quiet, 0.99), quantile(&beside, 0.99));
    figure("p99, times", &format!("{:.2}", after.as_secs_f64() / before.as_secs_f64()));
    report.goal_times_within(
        11,
        "p99 of a claim beside the archive",
        after,
        ("without it", before),
        SLOWER_AT_MOST,
    );

    steps.extend(archive(store.clone(), CancellationToken::new(), Some(0)).await?);
    let moved: i64 = steps.iter().map(|(n, _)| i64::from(*n)).sum();
    ensure!(moved == i64::from(scale.stored), "{moved} jobs were archived instead of {}", scale.stored);
    let times: Vec<Duration> = steps.iter().map(|(_, time)| *time).collect();
    figure("a step of the archive", &percentiles(&times));
    let speed = rate(moved as f64, times.iter().sum());
    figure("archived while it does not rest", &format!("{speed:.0} jobs/s"));
    check(&database).await?;
    database.settle().await?;
    let hot_after = hot_bytes(&database).await?;
    let archived = database
        .number("select coalesce(sum(bytes), 0)::bigint from v_archive_statistics where place = 'archived'")
        .await?;
    let mib = |bytes: i64| format!("{} MiB", bytes >> 20);
    figure(
        "hot tables before, after, the archive",
        &format!("{}, {}, {}", mib(hot_before), mib(hot_after), mib(archived)),
    );
    store.close().await;
    stage.drop(database).await
}

pub fn open(database: &Database) -> anyhow::Result<Store> {
    let settings = PoolSettings {
        size: 2,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(30),
        lock_timeout: Duration::from_secs(10),
    };
    Ok(Store::new(connect(&SecretString::from(database.url.clone()), "bench", settings)?))
}

async fn finished(database: &Database, jobs: i32) -> anyhow::Result<()> {
    let mut connection = database.db.acquire().await?;
    sqlx::query("select set_config('bench.finished', $1, false)")
        .bind(jobs.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::raw_sql(include_str!("archive.sql")).execute(&mut *connection).await?;
    drop(connection);
    database.settle().await
}

/// Claims and completes so many batches; returns how long each claim took.
async fn time_claims(store: &Store, node: Uuid, claims: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(claims);
    for _ in 0..claims {
        let begun = Instant::now();
        let claimed = store.claim_jobs(node, &[(JobKind::ProbeScenario, BATCH)]).await?;
        times.push(begun.elapsed());
        let claims = claimed.claims();
        ensure!(claims.len() == BATCH as usize, "{} jobs instead of {BATCH}", claims.len());
        let ends =
            claims.into_iter().map(|claim| completed(claim, Answer::Echo)).collect::<Result<Vec<_>, _>>()?;
        ensure!(store.end_attempts(node, &ends, i32::MAX).await?.len() == ends.len(), "an end came too late");
    }
    Ok(times)
}

/// Archives as maintenance does: a step, and a rest of `rest` times its length, or as the default policy says; until
/// nothing is left or it is enough.
async fn archive(
    store: Store,
    enough: CancellationToken,
    rest: Option<u32>,
) -> anyhow::Result<Vec<(i32, Duration)>> {
    let policy: ArchivePolicy = Config::from_lookup(&|_| None)?.archive;
    let mut steps = Vec::new();
    while !enough.is_cancelled() {
        let begun = Instant::now();
        let moved = store.archive_jobs(policy.after, policy.batch).await?.unwrap_or(0);
        if moved == 0 {
            break;
        }
        let took = begun.elapsed();
        steps.push((moved, took));
        tokio::select! {
            () = tokio::time::sleep(took * rest.unwrap_or(policy.rest)) => {}
            () = enough.cancelled() => {}
        }
    }
    Ok(steps)
}

async fn hot_bytes(database: &Database) -> anyhow::Result<i64> {
    database.number("select bytes from v_archive_statistics where place = 'hot'").await
}

/// Every job is counted, and in one place.
async fn check(database: &Database) -> anyhow::Result<()> {
    let wrong = database
        .number(
            "select count(*) from lane l
              cross join lateral (
                select count(*) filter (where j.state = 'completed') as completed,
                       count(*) filter (where j.state = 'failed') as failed
                  from any_job j where j.lane_id = l.id
              ) as n
              where (l.completed, l.failed) is distinct from (n.completed, n.failed)",
        )
        .await?;
    ensure!(wrong == 0, "{wrong} lanes count wrongly");
    let left = database
        .number("select count(*) from current_job j join lane l on l.id = j.lane_id where l.model = 'mock/finished'")
        .await?;
    ensure!(left == 0, "{left} finished jobs are still hot");
    Ok(())
}
