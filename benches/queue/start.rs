//! How long `startRun` takes, from the request to its answer.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cpu::Meter;
use crate::floor;
use crate::process::Node;
use crate::report::{Report, figure, heading, median, ms, rate};
use crate::scale::Scale;
use crate::stage::{Database, Stage, serve, stop};

/// What a server may grow by while it starts a run, in bytes: no job travels through it.
const GROWTH_MAX: f64 = 8e6;

/// Measures runs of three sizes, each beside the floor's insert of as many items.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading("startRun over HTTP, request to answer");
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    floor::create(&database).await?;

    let mut definitions = Vec::new();
    for n in scale.started {
        let begun = Instant::now();
        definitions.push(client.definition(&format!("of {n}"), &dimensions(n)?).await?);
        figure(&format!("createDefinition with {n} scenarios"), &ms(begun.elapsed()));
    }
    let mut starts = [const { Vec::<Duration>::new() }; 3];
    let mut used = [const { Vec::<Duration>::new() }; 3];
    let mut plain = [const { Vec::<Duration>::new() }; 3];
    // More rounds than elsewhere: a checkpoint in one of them weighs heavily.
    for _ in 0..scale.rounds + 2 {
        for (i, n) in scale.started.into_iter().enumerate() {
            plain[i].push(floor::insert(&database, n).await?);
            let meter = Meter::ours()?;
            let (time, run) = client.start_run(&definitions[i], &["mock/echo"]).await?;
            starts[i].push(time);
            used[i].push(meter.used()?);
            check(&database, &run, n).await?;
        }
    }
    for (i, n) in scale.started.into_iter().enumerate() {
        let (start, plain) = (median(&starts[i]), median(&plain[i]));
        let ratio = start.as_secs_f64() / plain.as_secs_f64();
        let value = format!(
            "{} ({:.0} jobs/s; processor {}); the floor's insert {} ({:.0} items/s); {ratio:.1} times it",
            ms(start),
            rate(n as f64, start),
            ms(median(&used[i])),
            ms(plain),
            rate(n as f64, plain)
        );
        figure(&format!("startRun of {n} jobs"), &value);
    }
    report.goal_within(
        3,
        &format!("startRun of {} jobs", scale.started[2]),
        median(&starts[2]),
        Duration::from_secs(2),
    );
    let jobs = scale.started[2] as f64;
    report.goal_times_from(
        3,
        &format!("startRun of {} jobs", scale.started[2]),
        rate(jobs, median(&starts[2])),
        ("the floor's insert", rate(jobs, median(&plain[2]))),
        0.5,
    );
    stop(app).await;
    memory(stage, &database, scale, &definitions, report).await?;
    stage.drop(database).await
}

/// How much a server grows at its peak while it starts the largest run.
async fn memory(
    stage: &Stage,
    database: &Database,
    scale: &Scale,
    definitions: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let (server, client) = Node::serve(stage, database).await?;
    let [small, _, large] = definitions else { bail!("{} definitions", definitions.len()) };
    // What a first request loads stays.
    for _ in 0..20 {
        client.start_run(small, &["mock/echo"]).await?;
    }
    let before = server.resident()?;
    server.forget_peak()?;
    client.start_run(large, &["mock/echo"]).await?;
    let (peak, after) = (server.peak()?, server.resident()?);
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    let value = format!("before {}, at its peak {}, after {}", mib(before), mib(peak), mib(after));
    let what = format!("startRun of {} jobs, the server's memory", scale.started[2]);
    figure(&what, &value);
    report.goal_bytes_within(3, &what, peak - before, GROWTH_MAX);
    drop(server);
    Ok(())
}

/// Sizes of dimensions, none above 100, whose product is `n`.
pub fn dimensions(mut n: u64) -> anyhow::Result<Vec<usize>> {
    let mut sizes = Vec::new();
    while n > 1 {
        let size = [100, 10, 5, 2].into_iter().find(|size| n.is_multiple_of(*size));
        let size = size.context("a number made of twos and fives")?;
        sizes.push(usize::try_from(size)?);
        n /= size;
    }
    Ok(sizes)
}

async fn check(database: &Database, run: &str, n: u64) -> anyhow::Result<()> {
    let (jobs, counted): (i64, i64) = sqlx::query_as(
        "select count(*), max(l.pending)::bigint from lane l join current_job j on j.lane_id = l.id
          where l.run_id = $1::uuid and j.state = 'pending'",
    )
    .bind(run)
    .fetch_one(&database.db)
    .await?;
    let n = i64::try_from(n)?;
    ensure!(jobs == n && counted == n, "{n} jobs were started, {jobs} wait, {counted} are counted");
    Ok(())
}
