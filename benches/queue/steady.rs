//! Whether the queue stays as fast as it was, while somebody's transaction keeps PostgreSQL from tidying up.

use std::time::{Duration, Instant};

use anyhow::ensure;
use runlane::config::{ArchivePolicy, Config};
use runlane::domain::JobKind;
use runlane::store::Store;
use sqlx::{Postgres, Transaction};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::archive;
use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::fill::{self, Fill};
use crate::process::Node;
use crate::report::{Report, figure, heading, median, ms, quantile};
use crate::scale::Scale;
use crate::stage::{Client, Database, Stage, serve, stop};
use crate::start::dimensions;

/// Runs that are started in a second.
const RUNS: u32 = 4;
/// Jobs of one claim.
const BATCH: u32 = 100;
/// How long a node waits that found nothing.
const PAUSE: Duration = Duration::from_millis(5);
/// The archive's rests, in times of a step: shorter than the default's, so that it keeps up with the jobs that end.
const REST: u32 = 20;
/// What is left of the rate of the first minute in the last, and how many times longer its claims may take.
const LEFT_FROM: f64 = 0.95;
const LONGER_AT_MOST: f64 = 3.0;

/// Measures a steady stream of runs by the minute, then one lane of many jobs from its first to its last.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let [minute, wanted] = scale.steady;
    heading(&format!(
        "{wanted} jobs a second for {} × {minute} s, an old snapshot held throughout",
        scale.steady_minutes
    ));
    stream(stage, scale, report).await?;
    heading(&format!("{} jobs of one lane, claimed {BATCH} at a time", scale.long_lane));
    long_lane(stage, scale, None).await?;
    long_lane(stage, scale, Some(report)).await
}

/// A transaction that sees the database as it is now, and keeps all that it sees from being removed.
async fn hold(database: &Database) -> anyhow::Result<Transaction<'static, Postgres>> {
    let mut transaction = database.db.begin_with("begin isolation level repeatable read").await?;
    sqlx::raw_sql("select count(*) from run").execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn stream(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let [minute, wanted] = scale.steady;
    let minute = Duration::from_secs(minute.into());
    let database = stage.database().await?;
    let (server, client) = Node::serve(stage, &database).await?;
    let definition = client.definition("steady", &dimensions((wanted / RUNS).into())?).await?;
    let held = hold(&database).await?;
    let over = CancellationToken::new();
    let begun = Instant::now();
    let starter = tokio::spawn(start_runs(client.clone(), definition, over.clone()));
    let worker = tokio::spawn(work(Driver::register(&database, BATCH).await?, over.clone()));
    let analyst = tokio::spawn(analyse(Driver::register(&database, BATCH).await?, over.clone()));
    let archivist = tokio::spawn(keep_archive(archive::open(&database)?, minute, over.clone()));
    let postmaster = stage.postmaster().await?;
    let mut used = Vec::new();
    for n in 1..=scale.steady_minutes {
        let meter = postmaster.map(Meter::of).transpose()?;
        tokio::time::sleep_until((begun + minute * n).into()).await;
        used.push(meter.as_ref().map(Meter::used).transpose()?);
        let left =
            database.number("select coalesce(sum(pending), 0)::bigint from lane where is_live").await?;
        figure(&format!("minute {n}: tables with their indexes"), &sizes(&database).await?);
        figure(&format!("minute {n}: jobs that wait at its end"), &left.to_string());
    }
    over.cancel();
    let started = starter.await??;
    let claims = worker.await??;
    analyst.await??;
    figure("jobs archived", &archivist.await??.to_string());
    held.rollback().await?;

    let mut rates = Vec::new();
    let mut slowest = Vec::new();
    for n in 0..scale.steady_minutes {
        let of: Vec<&Claimed> = claims
            .iter()
            .filter(|c| (c.at - begun).as_nanos() / minute.as_nanos() == u128::from(n))
            .collect();
        let jobs: usize = of.iter().map(|c| c.jobs).sum();
        let times: Vec<Duration> = of.iter().map(|c| c.took).collect();
        rates.push(jobs as f64 / minute.as_secs_f64());
        slowest.push(quantile(&times, 0.99));
        let value = format!(
            "{:.0} jobs/s; {} claims: p50 {}, p99 {}; processor of PostgreSQL {} a job",
            jobs as f64 / minute.as_secs_f64(),
            times.len(),
            ms(median(&times)),
            ms(quantile(&times, 0.99)),
            used[n as usize].map_or_else(
                || "unknown".to_owned(),
                |used| format!("{:.0} µs", used.as_secs_f64() * 1e6 / jobs as f64)
            )
        );
        figure(&format!("minute {}", n + 1), &value);
    }
    let completed = claims.iter().map(|c| c.jobs).sum::<usize>();
    let counted = database.number("select sum(completed) from lane where kind = 'probe:scenario'").await?;
    ensure!(
        i64::try_from(completed)? == counted,
        "{completed} jobs were completed, but {counted} are counted"
    );
    figure("runs started", &started.to_string());
    let last = rates.len() - 1;
    let of = format!("the first of {} minutes", scale.steady_minutes);
    report.goal_times_from(7, "jobs of the last minute", rates[last], (&of, rates[0]), LEFT_FROM);
    report.goal_times_within(7, "p99 of its claims", slowest[last], (&of, slowest[0]), LONGER_AT_MOST);
    drop(server);
    stage.drop(database).await
}

/// Starts runs evenly until it is over; says how many.
async fn start_runs(client: Client, definition: String, over: CancellationToken) -> anyhow::Result<usize> {
    let mut every = interval(Duration::from_secs(1) / RUNS);
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut started = 0;
    while !over.is_cancelled() {
        every.tick().await;
        client.start_run(&definition, &["mock/echo"]).await?;
        started += 1;
    }
    Ok(started)
}

/// One claim that brought something.
struct Claimed {
    at: Instant,
    took: Duration,
    jobs: usize,
}

/// Claims and completes probes until it is over.
async fn work(driver: Driver, over: CancellationToken) -> anyhow::Result<Vec<Claimed>> {
    let mut all = Vec::new();
    while !over.is_cancelled() {
        let at = Instant::now();
        let batch = driver.claim_once(JobKind::ProbeScenario).await?;
        if batch.claims.is_empty() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        all.push(Claimed { at, took: at.elapsed(), jobs: batch.claims.len() });
        driver.complete(batch, Answer::Echo).await?;
    }
    driver.close().await;
    Ok(all)
}

/// Has every analysis find that nothing has changed.
async fn analyse(driver: Driver, over: CancellationToken) -> anyhow::Result<()> {
    while !over.is_cancelled() {
        let batch = driver.claim_once(JobKind::AnalyzeBasic).await?;
        driver.complete(batch, Answer::Unchanged).await?;
        tokio::time::sleep(Duration::from_secs(1) / RUNS).await;
    }
    driver.close().await;
    Ok(())
}

/// Tidies up as a node that leads does, and archives what ended this long ago, until it is over; says how many jobs.
async fn keep_archive(store: Store, after: Duration, over: CancellationToken) -> anyhow::Result<i64> {
    let policy: ArchivePolicy = Config::from_lookup(&|_| None)?.archive;
    let mut moved = 0;
    let mut tidied = Instant::now();
    while !over.is_cancelled() {
        let begun = Instant::now();
        if tidied.elapsed() > policy.interval {
            store.refresh_figures().await?;
            tidied = begun;
        }
        let step = store.archive_jobs(after, policy.batch).await?.unwrap_or(0);
        moved += i64::from(step);
        let rest = if step == 0 { Duration::from_secs(1) } else { begun.elapsed() * REST };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = over.cancelled() => {}
        }
    }
    store.close().await;
    Ok(moved)
}

/// The tables that grow most, in MiB.
async fn sizes(database: &Database) -> anyhow::Result<String> {
    let sizes: Vec<(String, i64)> = sqlx::query_as(
        "select case when relname like 'archived_job%' then 'archive' else relname end as name,
                sum(pg_total_relation_size(relid))::bigint / 1048576
           from pg_stat_user_tables
          where relname in ('job', 'waiting_job', 'claim', 'lane', 'run', 'past_attempt', 'transcript')
             or relname like 'archived_job%'
          group by 1 order by 1",
    )
    .fetch_all(&database.db)
    .await?;
    let sizes: Vec<String> = sizes.into_iter().map(|(name, mib)| format!("{name} {mib}")).collect();
    Ok(format!("{} MiB", sizes.join(", ")))
}

/// Claims and completes all jobs of one lane; with a report, while a snapshot is held that is older than any claim.
async fn long_lane(stage: &Stage, scale: &Scale, report: Option<&mut Report>) -> anyhow::Result<()> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    stop(app).await;
    Fill::waiting(scale.long_lane, 1).store(&database).await?;
    let held = if report.is_some() { Some(hold(&database).await?) } else { None };
    let driver = Driver::register(&database, BATCH).await?;
    let mut times = Vec::new();
    loop {
        let begun = Instant::now();
        let batch = driver.claim_once(JobKind::ProbeScenario).await?;
        if batch.claims.is_empty() {
            break;
        }
        times.push(begun.elapsed());
        driver.complete(batch, Answer::Echo).await?;
    }
    driver.close().await;
    if let Some(held) = held {
        held.rollback().await?;
    }
    fill::agree(&database).await?;
    let tenths: Vec<Duration> = times.chunks(times.len().div_ceil(10)).map(median).collect();
    let said: Vec<String> = tenths.iter().map(|&time| ms(time)).collect();
    let what = if report.is_some() { "an old snapshot held" } else { "no snapshot held" };
    figure(&format!("p50 of a claim, by tenths of the lane, {what}"), &said.join(", "));
    if let (Some(report), Some(&first), Some(&last)) = (report, tenths.first(), tenths.last()) {
        let what =
            format!("a claim from the end of a lane of {} jobs, an old snapshot held", scale.long_lane);
        report.goal_times_within(7, &what, last, ("one from its beginning", first), LONGER_AT_MOST);
    }
    stage.drop(database).await
}
