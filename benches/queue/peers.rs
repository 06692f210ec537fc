//! Other queues on the same PostgreSQL, in turns with the floor and Runlane. `benches/peers/README.md` describes them.

mod gauge;
mod list;
mod process;
mod redis;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use comfy_table::{Table, presets};

use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::floor;
use crate::pick_up::PickUp;
use crate::report::{Report, figure, heading, median, ms, quantile};
use crate::scale::Scale;
use crate::stage::{Database, Stage, VISITORS, serve, stop, until};
use crate::start::dimensions;
use crate::throughput;

use gauge::{Gauge, Took};
use list::{Jobs, PEERS, Peer};
use process::Process;
use redis::Redis;

/// What was measured of a queue, of each phase one a round, and all pick-ups.
#[derive(Default)]
struct Row {
    insert: Vec<Took>,
    process: Vec<Took>,
    pick_up: Vec<Duration>,
}

/// Measures the floor, Runlane and every peer in turn, as often as there are rounds.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("{} no-op jobs of other queues", scale.peers));
    if let Some(peer) = PEERS.iter().find(|peer| !peer.program.is_built()) {
        ensure!(!scale.names("peers"), "{} is not built: make peers", peer.name);
        figure("left out, for they are not built", "make peers");
        return Ok(());
    }
    let (mut plain, mut runlane) = (Row::default(), Row::default());
    let mut rows: [Row; PEERS.len()] = Default::default();
    for _ in 0..scale.rounds {
        measure_floor(stage, scale, &mut plain).await?;
        measure_runlane(stage, scale, &mut runlane).await?;
        for (peer, row) in PEERS.iter().zip(&mut rows) {
            measure_peer(stage, scale, peer, row).await.context(peer.name)?;
        }
    }
    print(&plain, &runlane, &rows)?;
    let of = |row: &Row| middle(&row.process, Took::rate);
    for (peer, row) in PEERS.iter().zip(&rows).filter(|(_, row)| !row.process.is_empty()) {
        let least = if peer.keeps() { 2.0 } else { 1.2 };
        report.goal_times_from(1, "no-op jobs of Runlane", of(&runlane), (peer.name, of(row)), least);
    }
    report.goal_times_from(1, "no-op jobs of Runlane", of(&runlane), ("the floor", of(&plain)), 0.6);
    Ok(())
}

async fn postmaster(stage: &Stage) -> anyhow::Result<u32> {
    stage.postmaster().await?.context("the processor time of a PostgreSQL on another machine cannot be told")
}

async fn measure_floor(stage: &Stage, scale: &Scale, row: &mut Row) -> anyhow::Result<()> {
    let database = stage.database().await?;
    let postmaster = postmaster(stage).await?;
    floor::create(&database).await?;
    let gauge = Gauge::begin(&database, Meter::alone()?, postmaster).await?;
    let time = floor::insert(&database, scale.peers).await?;
    row.insert.push(gauge.end(&database, scale.peers, time).await?);
    database.settle().await?;
    let gauge = Gauge::begin(&database, Meter::alone()?, postmaster).await?;
    let time = floor::drain(&database, scale.peers, 2, 500).await?;
    row.process.push(gauge.end(&database, scale.peers, time).await?);
    stage.drop(database).await
}

/// One node, one lane, batches of 500, no transcripts; single jobs go over HTTP and to Python.
async fn measure_runlane(stage: &Stage, scale: &Scale, row: &mut Row) -> anyhow::Result<()> {
    let database = stage.database().await?;
    let postmaster = postmaster(stage).await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let definition = client.definition("jobs", &dimensions(scale.peers)?).await?;
    let gauge = Gauge::begin(&database, Meter::alone()?, postmaster).await?;
    let (time, _) = client.start_run(&definition, &["mock/echo"]).await?;
    row.insert.push(gauge.end(&database, scale.peers, time).await?);
    stop(app).await;
    throughput::forget_transcripts(&database).await?;
    database.settle().await?;
    let before = reported(stage, &database).await?;
    let driver = Driver::register(&database, 500).await?;
    let gauge = Gauge::begin(&database, Meter::alone()?, postmaster).await?;
    let begun = Instant::now();
    driver.run(Answer::Nothing, None).await?;
    let mut took = gauge.end(&database, scale.peers, begun.elapsed()).await?;
    took.transactions = Some(reported(stage, &database).await? - before);
    row.process.push(took);
    throughput::check(&database, i64::try_from(scale.peers)?, false).await?;
    stage.drop(database).await?;
    // Every one has its run, whose analysis takes longer.
    let picked = PickUp::prepare(stage).await?;
    let [_, to_line] = picked.idle(scale.picked_up / scale.rounds).await?;
    row.pick_up.extend(to_line);
    picked.end(stage).await
}

async fn measure_peer(stage: &Stage, scale: &Scale, peer: &Peer, row: &mut Row) -> anyhow::Result<()> {
    let jobs = scale.peers / peer.slower;
    let Some(home) = Home::make(stage, peer).await? else {
        figure(peer.name, "left out: no redis-server on PATH (Debian and Ubuntu: the package redis-server)");
        return Ok(());
    };
    row.insert.push(home.phase("insert", jobs).await.context("insert")?.0);
    row.process.push(home.phase("process", jobs).await.context("process")?.0);
    home.leave().await?;
    let home = Home::make(stage, peer).await?.context("redis-server was there")?;
    let (_, microseconds) = home.phase("pick-up", scale.picked_up as u64).await.context("pick-up")?;
    row.pick_up.extend(microseconds.into_iter().map(Duration::from_micros));
    home.leave().await
}

/// A peer and the new database, or the new Redis, that it has for itself.
struct Home<'a> {
    stage: &'a Stage,
    peer: &'a Peer,
    database: Database,
    redis: Option<Redis>,
}

impl<'a> Home<'a> {
    /// None if it needs a Redis and there is no program for one.
    async fn make(stage: &'a Stage, peer: &'a Peer) -> anyhow::Result<Option<Self>> {
        let redis = match peer.jobs {
            Jobs::Redis(sync) => match Redis::start(stage.dir(), sync).await? {
                None => return Ok(None),
                redis => redis,
            },
            Jobs::Database { .. } => None,
        };
        Ok(Some(Self { stage, peer, database: stage.empty().await?, redis }))
    }

    async fn leave(self) -> anyhow::Result<()> {
        self.stage.drop(self.database).await?;
        match self.redis {
            Some(redis) => redis.end().await,
            None => Ok(()),
        }
    }

    /// Has the peer do a phase, in a program of its own: when it has ended, its sessions have told what they did.
    async fn phase(&self, phase: &str, jobs: u64) -> anyhow::Result<(Took, Vec<u64>)> {
        let mut environment = vec![("DATABASE_URL", self.database.url.clone())];
        environment.extend(self.peer.setting.map(|(name, value)| (name, value.to_owned())));
        let mut server = postmaster(self.stage).await?;
        if let Some(redis) = &self.redis {
            environment.push(("REDIS_SOCKET", redis.socket.to_string_lossy().into_owned()));
            server = redis.pid()?;
        }
        self.database.settle().await?;
        let before = reported(self.stage, &self.database).await?;
        let mut process =
            Process::start(self.peer.program, phase, jobs, &environment, self.stage.dir()).await?;
        let gauge = Gauge::begin(&self.database, Meter::of(process.pid()?)?, server).await?;
        let begun = Instant::now();
        let answer = process.go().await?;
        let looks = if phase == "insert" { 0 } else { self.done().await? };
        let mut took = gauge.end(&self.database, jobs, begun.elapsed()).await?;
        ensure!(answer.jobs == jobs, "{} jobs instead of {jobs}", answer.jobs);
        process.end().await?;
        let transactions = reported(self.stage, &self.database).await? - before - looks;
        self.check(phase, i64::try_from(jobs)?).await?;
        match self.redis {
            Some(_) => took.wal_bytes = None,
            None => took.transactions = Some(transactions),
        }
        Ok((took, answer.microseconds))
    }

    /// Waits until every job is durably done; returns how often it looked.
    async fn done(&self) -> anyhow::Result<i64> {
        let Jobs::Database { open, .. } = self.peer.jobs else { return Ok(0) };
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut looks = 1;
        while self.database.number(open).await? > 0 {
            ensure!(Instant::now() < deadline, "not all jobs come to their end");
            tokio::time::sleep(Duration::from_millis(2)).await;
            looks += 1;
        }
        Ok(looks)
    }

    /// Every job is where it should be after a phase, once.
    async fn check(&self, phase: &str, jobs: i64) -> anyhow::Result<()> {
        let Jobs::Database { open, kept } = self.peer.jobs else { return Ok(()) };
        let left = self.database.number(open).await?;
        let wanted = if phase == "insert" { jobs } else { 0 };
        ensure!(left == wanted, "{left} jobs wait instead of {wanted}");
        if let (Some(kept), "process") = (kept, phase) {
            let kept = self.database.number(kept).await?;
            ensure!(kept == jobs, "{kept} jobs are kept instead of {jobs}");
        }
        Ok(())
    }
}

/// Transactions in a database so far, the benches' own included, when nobody else is in it.
async fn reported(stage: &Stage, database: &Database) -> anyhow::Result<i64> {
    until(database, "all sessions to end", VISITORS, |n| n == 0).await?;
    sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&database.db).await?;
    stage.transactions(database).await
}

fn middle(took: &[Took], of: impl Fn(&Took) -> f64) -> f64 {
    median(&took.iter().map(of).collect::<Vec<_>>())
}

fn print(plain: &Row, runlane: &Row, rows: &[Row]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "queue",
        "insert jobs/s",
        "process jobs/s (least, most)",
        "processor µs a job, client + server",
        "log bytes a job",
        "transactions per 1,000 jobs",
        "pick-up p50 / p99",
        "keeps jobs",
    ]);
    let mut add = |name: &str, row: &Row, keeps: bool| -> anyhow::Result<()> {
        if row.process.is_empty() {
            return Ok(());
        }
        let rates: Vec<f64> = row.process.iter().map(Took::rate).collect();
        let optional = |of: fn(&Took) -> Option<f64>| {
            let values: Option<Vec<f64>> = row.process.iter().map(of).collect();
            values.map_or_else(|| "–".to_owned(), |values| format!("{:.0}", median(&values)))
        };
        table.add_row([
            name.to_owned(),
            format!("{:.0}", middle(&row.insert, Took::rate)),
            format!("{:.0} ({:.0}, {:.0})", median(&rates), quantile(&rates, 0.0), quantile(&rates, 1.0)),
            format!(
                "{:.0} + {:.0}",
                middle(&row.process, Took::client_us),
                middle(&row.process, Took::server_us)
            ),
            optional(Took::wal_each),
            optional(Took::per_thousand),
            if row.pick_up.is_empty() {
                "–".to_owned()
            } else {
                format!("{} / {}", ms(quantile(&row.pick_up, 0.5)), ms(quantile(&row.pick_up, 0.99)))
            },
            if keeps { "yes" } else { "no" }.to_owned(),
        ]);
        Ok(())
    };
    add("floor: one table, 2 clients", plain, true)?;
    add("Runlane, 1 node", runlane, true)?;
    for (peer, row) in PEERS.iter().zip(rows) {
        add(peer.name, row, peer.keeps())?;
    }
    println!("{table}");
    Ok(())
}
