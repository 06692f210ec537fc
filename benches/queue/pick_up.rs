//! How long it is from `startRun` of one job to the first line of its probe in Python, on one machine's clock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runlane::domain::clock::{Clock, SystemClock};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::floor;
use crate::process::Node;
use crate::report::{Report, figure, heading, percentiles, quantile, rate};
use crate::scale::Scale;
use crate::stage::{Client, Database, Stage, registered, until};
use crate::start::dimensions;

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

/// Measures it on an idle queue, and beside a steady load that leaves slots free.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("{} runs of one job, each when the one before has ended", scale.picked_up));
    let bench = PickUp::prepare(stage).await?;
    let table = stage.database().await?;
    floor::create(&table).await?;
    let mut of_floor = floor::pick_up(&table, scale.picked_up / 2).await?;
    let [to_answer, to_line] = bench.idle(scale.picked_up).await?;
    of_floor.extend(floor::pick_up(&table, scale.picked_up / 2).await?);
    stage.drop(table).await?;
    figure("pick-up: startRun of one job to its answer", &percentiles(&to_answer));
    figure("pick-up: startRun of one job to its first line of Python", &percentiles(&to_line));
    figure("pick-up of the floor: one insert to its claim", &percentiles(&of_floor));
    figure(
        "pick-up, p50, times that of the floor",
        &format!("{:.2}", quantile(&to_line, 0.5).div_duration_f64(quantile(&of_floor, 0.5))),
    );
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&to_line, share));
    report.goal_within(4, "pick-up on an idle queue, p50", p50, Duration::from_millis(4));
    report.goal_within(4, "pick-up on an idle queue, p99", p99, Duration::from_millis(15));

    let (to_line, done) = bench.loaded(scale).await?;
    figure(&format!("the same beside {} jobs a second", scale.load), &percentiles(&to_line));
    figure("jobs completed meanwhile", &format!("{done:.0}/s"));
    let (what, p99) = (format!("pick-up beside {done:.0} jobs/s, p99"), quantile(&to_line, 0.99));
    report.goal_within(4, &what, p99, Duration::from_millis(50));
    bench.end(stage).await
}

/// A server, a node with warm workers, and a definition of one job.
pub struct PickUp {
    clock: Clocked,
    database: Database,
    client: Client,
    definition: String,
    // They end with this value.
    _server: Node,
    _node: Node,
}

impl PickUp {
    /// Starts them, and the Python processes.
    pub async fn prepare(stage: &Stage) -> anyhow::Result<Self> {
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
        let prepared = Self { clock, database, client, definition, _server: server, _node: node };
        prepared.idle(10).await?;
        Ok(prepared)
    }

    /// How long the answers took on an idle queue, and how long it was to the first lines of Python.
    pub async fn idle(&self, n: usize) -> anyhow::Result<[Vec<Duration>; 2]> {
        self.times(n, LIVE_OF).await
    }

    /// How long it was to the first lines of Python beside the load, and how many jobs completed a second.
    async fn loaded(&self, scale: &Scale) -> anyhow::Result<(Vec<Duration>, f64)> {
        let definition = self.client.definition("load", &dimensions(scale.load / LOAD_RUNS)?).await?;
        let over = CancellationToken::new();
        let load = tokio::spawn(load(self.client.clone(), definition, over.clone()));
        until(&self.database, "the load", "select count(*) from transcript", |n| n > 0).await?;
        let (before, begun) = (self.database.number(COMPLETED).await?, Instant::now());
        // The analyses of the load are in nobody's way, but each other's.
        let [_, to_line] = self.times(scale.picked_up, LIVE_PROBES_OF).await?;
        let done = rate((self.database.number(COMPLETED).await? - before) as f64, begun.elapsed());
        over.cancel();
        load.await??;
        Ok((to_line, done))
    }

    /// Ends them.
    pub async fn end(self, stage: &Stage) -> anyhow::Result<()> {
        let database = self.database;
        drop((self._node, self._server));
        stage.drop(database).await
    }

    async fn times(&self, n: usize, live: &'static str) -> anyhow::Result<[Vec<Duration>; 2]> {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..n {
            let ran = self.clock.lines()?.len();
            let begun = SystemClock.now();
            let (answered, run) = self.client.start_run(&self.definition, &["mock/echo"]).await?;
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

/// Starts the load's runs evenly until it is over.
async fn load(client: Client, definition: String, over: CancellationToken) -> anyhow::Result<()> {
    let mut every = interval(Duration::from_secs(1).div_f64(LOAD_RUNS as f64));
    while !over.is_cancelled() {
        every.tick().await;
        client.start_run(&definition, &[LOAD_MODEL]).await?;
    }
    Ok(())
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
