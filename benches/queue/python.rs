//! What real Python workers add: jobs a second through the whole system.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::process::Node;
use crate::report::{Report, figure, heading, median, rate};
use crate::scale::Scale;
use crate::stage::{Client, Database, LIVE, Stage, python, registered, serve, stop, until};
use crate::start::dimensions;

/// Slots for jobs that take no time: as many as a batch of ends has, so that claims are of some hundred jobs.
const FAST_SLOTS: &str = "500";

/// Measures throughput with one node in this process and with two processes.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("{} probes of mock/echo by warm Python workers", scale.probed));
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..scale.rounds {
        rates[0].push(one_node(stage, scale).await?);
        rates[1].push(two_processes(stage, scale).await?);
    }
    figure(
        &format!("1 node in this process: {FAST_SLOTS} slots, 2 Python processes"),
        &format!("{:.0} jobs/s", median(&rates[0])),
    );
    figure("2 node processes: 32 slots, 1 Python process each", &format!("{:.0} jobs/s", median(&rates[1])));
    report.goal_rate_from(2, "probes of mock/echo by 1 node", median(&rates[0]), 10_000.0);
    let alone = process_per_job(scale.spawned).await?;
    figure("a Python process for each job, 2 at a time", &format!("{alone:.0} jobs/s"));
    let of = ("a process for each job", alone);
    report.goal_times_from(2, "probes of mock/echo by 1 node", median(&rates[0]), of, 80.0);
    Ok(())
}

/// Jobs a second when each is a Python process of its own that echoes JSON, two at a time. It imports nothing else, and no
/// installed package: real workers would take far longer.
async fn process_per_job(jobs: u32) -> anyhow::Result<f64> {
    const ECHO: &str = "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)";
    let begun = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= jobs {
                    return anyhow::Ok(());
                }
                let mut child = Command::new(python())
                    .args(["-I", "-S", "-c", ECHO])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let job = json!({ "id": id });
                child.stdin.take().context("a pipe")?.write_all(job.to_string().as_bytes()).await?;
                let output = child.wait_with_output().await?;
                ensure!(output.status.success(), "Python ended with {}", output.status);
                ensure!(serde_json::from_slice::<Value>(&output.stdout)? == job, "another job came back");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(rate(f64::from(jobs), begun.elapsed()))
}

async fn one_node(stage: &Stage, scale: &Scale) -> anyhow::Result<f64> {
    let database = stage.database().await?;
    let slots = [("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", FAST_SLOTS), ("RUNLANE_WARM_WORKERS", "2")];
    let (app, client) = serve(&database, true, &slots).await?;
    let rate = probe(&database, &client, scale.probed).await?;
    stop(app).await;
    stage.drop(database).await?;
    Ok(rate)
}

async fn two_processes(stage: &Stage, scale: &Scale) -> anyhow::Result<f64> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let slots = [("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "32"), ("RUNLANE_WARM_WORKERS", "1")];
    let nodes = [Node::start(stage, &database, &slots)?, Node::start(stage, &database, &slots)?];
    registered(&database, 2).await?;
    let rate = probe(&database, &client, scale.probed).await?;
    let ran = database.number("select count(distinct node_id) from attempt").await?;
    ensure!(ran == 2, "{ran} nodes took part");
    for node in nodes {
        node.stop()?;
    }
    stop(app).await;
    stage.drop(database).await?;
    Ok(rate)
}

/// Warms the workers up, then runs so many probes; returns jobs a second from the first claim to the last end.
async fn probe(database: &Database, client: &Client, n: u64) -> anyhow::Result<f64> {
    let warm = client.definition("warm-up", &[100]).await?;
    client.start_run(&warm, &["mock/echo"]).await?;
    until(database, "the warm-up", LIVE, |n| n == 0).await?;
    let definition = client.definition("probes", &dimensions(n)?).await?;
    database.settle().await?;
    let (_, run) = client.start_run(&definition, &["mock/echo"]).await?;
    until(database, "the probes", LIVE, |n| n == 0).await?;
    let (completed, answers, seconds): (i64, i64, f64) = sqlx::query_as(
        "select count(*) filter (where j.state = 'completed' and j.claims = 1), count(t.job_id),
                extract(epoch from max(j.finished_at) - min(j.claimed_at))::float8
           from lane l join current_job j on j.lane_id = l.id left join transcript t on t.job_id = j.id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(&run)
    .fetch_one(&database.db)
    .await?;
    let n = i64::try_from(n)?;
    ensure!(completed == n && answers == n, "{completed} completed, {answers} transcripts, instead of {n}");
    Ok(n as f64 / seconds)
}
