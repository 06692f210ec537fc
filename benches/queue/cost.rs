//! What a job costs: processor time of the database and of the node, its log, transactions and statements.

use std::time::Duration;

use anyhow::ensure;

use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::fill::{self, Fill};
use crate::process::Node;
use crate::report::{figure, heading};
use crate::scale::Scale;
use crate::stage::{LIVE, Stage, registered, serve, stop, until};
use crate::start::dimensions;
use crate::statements::{Log, by_frequency};

/// How far the database's log has got, in bytes.
const LOGGED: &str = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
/// What is sent less often than this, for a thousand jobs, has to do with time and not with jobs.
const RARE: f64 = 0.5;

/// Measures no-op jobs in large and in usual batches, then what a real node sends for jobs of real workers.
pub async fn measure(stage: &Stage, scale: &Scale) -> anyhow::Result<()> {
    heading(&format!("the cost of a job: {} no-op jobs with transcripts, 1 node, 1 lane", scale.driven));
    for batch in [500, 32] {
        drained(stage, scale, batch).await?;
    }
    node(stage, scale).await
}

async fn drained(stage: &Stage, scale: &Scale, batch: u32) -> anyhow::Result<()> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    stop(app).await;
    Fill::waiting(scale.driven, 1).store(&database).await?;
    let driver = Driver::register(&database, batch).await?;
    let wal = database.number(LOGGED).await?;
    let transactions = stage.transactions(&database).await?;
    let server = stage.postmaster().await?.map(Meter::of).transpose()?;
    let own = Meter::alone()?;
    let tally = driver.run(Answer::Echo, None).await?;
    ensure!(tally.jobs == usize::try_from(scale.driven)?, "{} jobs completed", tally.jobs);
    let own = own.used()?;
    let server = server.as_ref().map(Meter::used).transpose()?;
    let jobs = tally.jobs as f64;
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6 / jobs);
    let value = format!(
        "processor of PostgreSQL {}, of the node {}; WAL {:.0} bytes; {:.1} transactions for 1,000 jobs",
        server.map_or_else(|| "unknown".to_owned(), micros),
        micros(own),
        (database.number(LOGGED).await? - wal) as f64 / jobs,
        (stage.transactions(&database).await? - transactions) as f64 * 1e3 / jobs,
    );
    figure(&format!("a job, batches of {batch}"), &value);
    stage.drop(database).await
}

/// Every statement of a node that runs jobs in Python, and how many of each there are for a thousand jobs.
async fn node(stage: &Stage, scale: &Scale) -> anyhow::Result<()> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let definition = client.definition("probes", &dimensions(scale.probed)?).await?;
    let Some(mut log) = Log::of(stage, &database).await? else {
        figure("statements", "unknown: this PostgreSQL's log cannot be read");
        stop(app).await;
        return stage.drop(database).await;
    };
    let slots = [("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "64"), ("RUNLANE_WARM_WORKERS", "2")];
    let node = Node::start(stage, &database, &slots)?;
    registered(&database, 1).await?;
    client.start_run(&definition, &["mock/echo"]).await?;
    log.restart()?;
    until(&database, "the probes", LIVE, |n| n == 0).await?;
    node.stop()?;
    let counts = log.counts()?;
    let jobs = scale.probed as f64 / 1e3;
    let mut claims = 0;
    let mut sent = 0;
    for (statement, n) in by_frequency(&counts) {
        let often = n as f64 / jobs;
        if statement.starts_with("call claim_with_scenarios") {
            claims += n;
        }
        sent += n;
        if often >= RARE {
            figure(&format!("a real node, 64 slots: {often:.1} for 1,000 jobs"), statement);
        }
    }
    ensure!(claims > 0, "no statement is known as a claim");
    let value =
        format!("{:.1} a claim, {:.1} for 1,000 jobs", sent as f64 / claims as f64, sent as f64 / jobs);
    figure("a real node, 64 slots: statements", &value);
    stop(app).await;
    stage.drop(database).await
}
