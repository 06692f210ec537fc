//! A node of its own process: how soon it is ready, how soon it takes part, and what memory it needs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::process::{Node, resident};
use crate::report::{Report, figure, heading, median, percentiles};
use crate::scale::Scale;
use crate::stage::{Client, Database, Stage, registered, serve, stop, until};
use crate::start::dimensions;

/// How long a node may take to start before the bench gives up.
const START_MAX: Duration = Duration::from_secs(30);
const READY_MAX: Duration = Duration::from_millis(300);
const JOINED_MAX: Duration = Duration::from_millis(500);
const NODE_MEMORY_MAX: f64 = 150e6;
const WORKER_MEMORY_MAX: f64 = 100e6;
/// Probes that no bench waits for.
const ENDLESS: &str = "mock/echo?delayMs=3600000";

/// Measures a start, a node that joins a loaded queue, and the memory of a node with many jobs.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading("a node of its own process");
    let program = Path::new(env!("CARGO_BIN_EXE_runlane"));
    let size = mebibytes(std::fs::metadata(program)?.len() as f64);
    figure("size of the program as built here, symbols included", &size);
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let ready = starts(stage, scale, &database).await?;
    figure("start to ready, on a database with the schema in it", &percentiles(&ready));
    report.goal_within(10, "a node, start to ready", median(&ready), READY_MAX);
    let joined = joins(stage, scale, &database, &client).await?;
    figure("ready to the first claim, beside a busy node", &percentiles(&joined));
    report.goal_within(1, "a node that joins a loaded queue, ready to claim", median(&joined), JOINED_MAX);
    stop(app).await;
    stage.drop(database).await?;
    memory(stage, scale, report).await
}

/// From the start of a process to its row among the nodes.
async fn starts(stage: &Stage, scale: &Scale, database: &Database) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..scale.rounds {
        let before = database.number(NOW).await?;
        let begun = Instant::now();
        let node = Node::start(stage, database, &[])?;
        registered_after(database, before).await?;
        times.push(begun.elapsed());
        node.stop()?;
    }
    Ok(times)
}

/// The database's time, in microseconds since 1970.
const NOW: &str = "select (extract(epoch from clock_timestamp()) * 1e6)::bigint";

/// Waits until a node has registered that was not there at this time of the database's; returns its id.
async fn registered_after(database: &Database, micros: i64) -> anyhow::Result<String> {
    let sql = "select id::text from node where executes and extract(epoch from started_at) * 1e6 > $1";
    let deadline = Instant::now() + START_MAX;
    loop {
        if let Some(id) = sqlx::query_scalar(sql).bind(micros).fetch_optional(&database.db).await? {
            return Ok(id);
        }
        ensure!(Instant::now() < deadline, "the node does not register");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Between a node's registration and its first claim, as the database has them.
async fn joins(
    stage: &Stage,
    scale: &Scale,
    database: &Database,
    client: &Client,
) -> anyhow::Result<Vec<Duration>> {
    let definition = client.definition("a load", &dimensions(20_000)?).await?;
    let busy = Node::start(stage, database, &[])?;
    client.start_run(&definition, &["mock/echo?delayMs=100"]).await?;
    until(database, "the busy node's claims", "select count(*) from attempt", |n| n > 0).await?;
    let mut times = Vec::new();
    for _ in 0..scale.rounds {
        let before = database.number(NOW).await?;
        let node = Node::start(stage, database, &[])?;
        let id = registered_after(database, before).await?;
        // Whatever of it is first: a job in its hands, or one that it has ended.
        let first = "select (extract(epoch from min(c.at) - n.started_at) * 1e6)::bigint
                       from node n
                       join (select node_id, claimed_at as at from current_job where state = 'active'
                             union all
                             select node_id, started_at from attempt) c on c.node_id = n.id
                      where n.id = $1::uuid
                      group by n.id, n.started_at";
        let micros = loop {
            let found: Option<i64> = sqlx::query_scalar(first).bind(&id).fetch_optional(&database.db).await?;
            match found {
                Some(micros) => break micros,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        times.push(Duration::from_micros(u64::try_from(micros).context("claimed before it was ready")?));
        drop(node);
    }
    drop(busy);
    Ok(times)
}

/// Of a node with a thousand jobs in flight and many waiting, and of a warm worker with two hundred.
async fn memory(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let mut workers = Vec::new();
    for (in_flight, waiting) in [("1", 100), ("200", 1_000), ("1000", scale.started[2])] {
        let database = stage.database().await?;
        let (app, client) = serve(&database, false, &[]).await?;
        let definition = client.definition("many", &dimensions(waiting)?).await?;
        let slots = [("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", in_flight), ("RUNLANE_WARM_WORKERS", "1")];
        let node = Node::start(stage, &database, &slots)?;
        registered(&database, 1).await?;
        client.start_run(&definition, &[ENDLESS]).await?;
        let wanted: i64 = in_flight.parse()?;
        until(&database, "the claims", "select count(*) from current_job where state = 'active'", |n| {
            n == wanted
        })
        .await?;
        // Claimed is not yet handed out: nothing tells when the worker has read the last of them.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let own = node.resident()?;
        let python: f64 = children(node.pid())?.into_iter().map(resident).sum::<anyhow::Result<f64>>()?;
        figure(
            &format!("{in_flight} jobs in flight, {waiting} in all"),
            &format!("the node {}, its Python processes {}", mebibytes(own), mebibytes(python)),
        );
        workers.push(python);
        if in_flight == "1000" {
            report.goal_bytes_within(9, "memory of a node with 1000 jobs in flight", own, NODE_MEMORY_MAX);
        }
        drop(node);
        stop(app).await;
        stage.drop(database).await?;
    }
    let grown = workers[1] - workers[0];
    report.goal_bytes_within(9, "memory of a warm worker for 200 jobs in flight", grown, WORKER_MEMORY_MAX);
    Ok(())
}

/// The processes that a process has started.
fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        for child in text.split_whitespace() {
            all.push(child.parse()?);
        }
    }
    Ok(all)
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
