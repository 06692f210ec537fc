//! What real Python workers add: jobs a second through the whole system, and the time until a job's first line runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runlane::domain::clock::{Clock, SystemClock};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::process::Node;
use crate::report::{Report, figure, heading, median, percentiles, quantile, rate};
use crate::scale::Scale;
use crate::stage::{Client, Database, LIVE, Stage, registered, serve, stop, until};
use crate::start::dimensions;

/// Slots for jobs that take no time: as many as a batch of ends has, so that claims are of some hundred jobs.
const FAST_SLOTS: &str = "500";

/// Measures throughput with one node in this process and with two processes, then the pick-up of single jobs.
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
    pick_up(stage, scale, report).await
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

/// From `startRun` of one job to the first line of the probe in Python, on one machine's clock: on an idle queue, and
/// beside a steady load that leaves slots free.
async fn pick_up(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let clock = Clocked::prepare(stage)?;
    let database = stage.database().await?;
    let (server, client) = Node::serve(stage, &database).await?;
    let path = clock.dir.to_string_lossy().into_owned();
    // The node is a process of its own, which passes PYTHONPATH on to its workers.
    let node = Node::start(
        stage,
        &database,
        &[
            ("PYTHONPATH", &path),
            ("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", SLOTS),
            ("RUNLANE_WARM_WORKERS", "2"),
        ],
    )?;
    registered(&database, 1).await?;
    let definition = client.definition("one", &[1]).await?;
    let bench = PickUp { clock: &clock, database: &database, client: &client, definition: &definition };
    // The first start the Python processes.
    bench.times(10, LIVE_OF).await?;
    let [to_answer, to_line] = bench.times(scale.picked_up, LIVE_OF).await?;
    figure("pick-up: startRun of one job to its answer", &percentiles(&to_answer));
    figure("pick-up: startRun of one job to its first line of Python", &percentiles(&to_line));
    report.goal_within(4, "pick-up on an idle queue, p50", quantile(&to_line, 0.5), Duration::from_millis(4));
    report.goal_within(
        4,
        "pick-up on an idle queue, p99",
        quantile(&to_line, 0.99),
        Duration::from_millis(15),
    );

    let loaded = client.definition("load", &dimensions(scale.load / LOAD_RUNS)?).await?;
    let over = CancellationToken::new();
    let load = tokio::spawn(load(client.clone(), loaded, over.clone()));
    until(&database, "the load", "select count(*) from transcript", |n| n > 0).await?;
    let (before, begun) = (database.number(COMPLETED).await?, Instant::now());
    // The analyses of the load are in nobody's way, but each other's.
    let [_, to_line] = bench.times(scale.picked_up, LIVE_PROBES_OF).await?;
    let done = rate((database.number(COMPLETED).await? - before) as f64, begun.elapsed());
    over.cancel();
    load.await??;
    figure(&format!("the same beside {} jobs a second", scale.load), &percentiles(&to_line));
    figure("jobs completed meanwhile", &format!("{done:.0}/s"));
    report.goal_within(
        4,
        &format!("pick-up beside {done:.0} jobs/s, p99"),
        quantile(&to_line, 0.99),
        Duration::from_millis(50),
    );
    drop(node);
    drop(server);
    stage.drop(database).await
}

/// Runs of the load that are started in a second.
const LOAD_RUNS: u64 = 2;
/// More than a run of the load has jobs.
const SLOTS: &str = "1000";
/// The load's model: it takes as long as a quick answer.
const LOAD_MODEL: &str = "mock/echo?delayMs=20";
/// Zero when nothing of a run waits or runs, its analysis included; and without it.
const LIVE_OF: &str = "select count(*) from lane where is_live and run_id = $1::uuid";
const LIVE_PROBES_OF: &str =
    "select count(*) from lane where is_live and kind = 'probe:scenario' and run_id = $1::uuid";
/// Probes that have completed.
const COMPLETED: &str = "select coalesce(sum(completed), 0)::bigint from lane where kind = 'probe:scenario'";

/// Starts the load's runs evenly until it is over.
async fn load(client: Client, definition: String, over: CancellationToken) -> anyhow::Result<()> {
    let mut every = interval(Duration::from_secs(1).div_f64(LOAD_RUNS as f64));
    while !over.is_cancelled() {
        every.tick().await;
        client.start_run(&definition, &[LOAD_MODEL]).await?;
    }
    Ok(())
}

/// Runs of one job, one after the other.
struct PickUp<'a> {
    clock: &'a Clocked,
    database: &'a Database,
    client: &'a Client,
    definition: &'a str,
}

impl PickUp<'_> {
    /// How long the answers took, and how long it was to the first lines of Python.
    async fn times(&self, n: usize, live: &'static str) -> anyhow::Result<[Vec<Duration>; 2]> {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..n {
            let ran = self.clock.lines()?.len();
            let begun = SystemClock.now();
            let (answered, run) = self.client.start_run(self.definition, &["mock/echo"]).await?;
            self.ended(&run, live).await?;
            let lines = self.clock.lines()?;
            ensure!(lines.len() == ran + 1, "{} probes ran instead of one", lines.len() - ran);
            let microseconds = lines[ran] - begun.timestamp_micros();
            times[0].push(answered);
            times[1].push(Duration::from_micros(u64::try_from(microseconds).context("the clock went back")?));
        }
        Ok(times)
    }

    /// Waits until nothing of a run waits or runs that counts.
    async fn ended(&self, run: &str, live: &'static str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let left: i64 = sqlx::query_scalar(live).bind(run).fetch_one(&self.database.db).await?;
            if left == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the run does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
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
