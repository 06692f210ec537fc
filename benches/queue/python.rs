//! What real Python workers add: jobs a second through the whole system, and the time until a job's first line runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use runlane::domain::clock::{Clock, SystemClock};

use crate::report::{Report, figure, heading, median, percentiles, quantile};
use crate::scale::Scale;
use crate::stage::{Client, Database, LIVE, Node, Stage, registered, serve, stop, until};
use crate::start::dimensions;

/// Measures throughput with one node in this process and with two processes, then the pick-up of single jobs.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("{} probes of mock/echo by warm Python workers", scale.probed));
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..scale.rounds {
        rates[0].push(one_node(stage, scale).await?);
        rates[1].push(two_processes(stage, scale).await?);
    }
    figure(
        "1 node in this process: 64 slots, 2 Python processes",
        &format!("{:.0} jobs/s", median(&rates[0])),
    );
    figure("2 node processes: 32 slots, 1 Python process each", &format!("{:.0} jobs/s", median(&rates[1])));
    report.goal_rate_from("probes of mock/echo by 1 node", median(&rates[0]), 10_000.0);
    pick_up(stage, scale, report).await
}

async fn one_node(stage: &Stage, scale: &Scale) -> anyhow::Result<f64> {
    let database = stage.database().await?;
    let slots = [("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "64"), ("RUNLANE_WARM_WORKERS", "2")];
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
           from lane l join job j on j.lane_id = l.id left join transcript t on t.job_id = j.id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(&run)
    .fetch_one(&database.db)
    .await?;
    let n = i64::try_from(n)?;
    ensure!(completed == n && answers == n, "{completed} completed, {answers} transcripts, instead of {n}");
    Ok(n as f64 / seconds)
}

/// From `startRun` of one job on an idle queue to the first line of the probe in Python, on one machine's clock.
async fn pick_up(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let clock = Clocked::prepare(stage)?;
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let path = clock.dir.to_string_lossy().into_owned();
    // The node is a process of its own, which passes PYTHONPATH on to its workers.
    let node = Node::start(stage, &database, &[("PYTHONPATH", &path)])?;
    registered(&database, 1).await?;
    let definition = client.definition("one", &[1]).await?;
    let mut to_line = Vec::new();
    let mut to_answer = Vec::new();
    for i in 0..=scale.picked_up {
        let begun = SystemClock.now();
        let (answered, _) = client.start_run(&definition, &["mock/echo"]).await?;
        until(&database, "the probe and its analysis", LIVE, |n| n == 0).await?;
        let ran = clock.lines()?;
        ensure!(ran.len() == i + 1, "{} probes ran instead of {}", ran.len(), i + 1);
        let microseconds = ran[i] - begun.timestamp_micros();
        // The first starts the Python process.
        if i > 0 {
            to_line.push(Duration::from_micros(u64::try_from(microseconds).context("the clock went back")?));
            to_answer.push(answered);
        }
    }
    figure("pick-up: startRun of one job to its answer", &percentiles(&to_answer));
    figure("pick-up: startRun of one job to its first line of Python", &percentiles(&to_line));
    report.goal_below("pick-up on an idle queue, p50", quantile(&to_line, 0.5), Duration::from_millis(4));
    report.goal_below("pick-up on an idle queue, p99", quantile(&to_line, 0.99), Duration::from_millis(15));
    node.stop()?;
    stop(app).await;
    stage.drop(database).await
}

/// A Python path on which every worker notes when a probe begins.
struct Clocked {
    dir: PathBuf,
}

impl Clocked {
    fn prepare(stage: &Stage) -> anyhow::Result<Self> {
        let dir = stage.dir().join("clock");
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("sitecustomize.py"), include_str!("python/sitecustomize.py"))?;
        std::fs::write(dir.join("began"), "")?;
        Ok(Self { dir })
    }

    /// When each probe began, in microseconds since 1970.
    fn lines(&self) -> anyhow::Result<Vec<i64>> {
        let text = std::fs::read_to_string(self.dir.join("began"))?;
        text.lines().map(|line| line.parse().with_context(|| format!("{line:?} is no time"))).collect()
    }
}
