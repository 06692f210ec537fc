//! What the Rust peers share: the protocol with the bench, and the ledger of what their handlers ran.
//!
//! A peer is started once for each phase, with `DATABASE_URL`, `JOBS` and the phase's name. It prepares, says so with a
//! line of JSON, does the phase when a line arrives, answers with a line of JSON, and ends when its input ends.

use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::Notify;

/// What a peer is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Insert all jobs in bulk.
    Insert,
    /// Work off what was inserted.
    Process,
    /// Pick up jobs that are sent one at a time.
    PickUp,
}

/// A job of any peer.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Job {
    /// From 0 upwards.
    pub id: u64,
}

/// A queue that is measured.
pub trait Peer: Sized {
    /// Makes the schema if it is missing, connects, and builds the worker.
    fn prepare(phase: Phase, url: &str) -> impl Future<Output = anyhow::Result<Self>>;
    /// Inserts jobs as the library does it fastest.
    fn insert(&self, ids: Range<u64>) -> impl Future<Output = anyhow::Result<()>>;
    /// Starts the worker, whose handler calls [`ran`], and returns.
    fn work(&self) -> impl Future<Output = anyhow::Result<()>>;
    /// Sends one job.
    fn send(&self, id: u64) -> impl Future<Output = anyhow::Result<()>>;
}

/// Jobs that are sent before pick-ups are timed, so that the worker listens and every plan is made.
const WARM_UP: u64 = 5;

#[derive(Default)]
struct Ledger {
    ran: HashSet<u64>,
    wanted: u64,
    reached: Option<Instant>,
}

static LEDGER: LazyLock<Mutex<Ledger>> = LazyLock::new(Mutex::default);
static REACHED: Notify = Notify::const_new();

/// Notes that a handler runs; ends the program if it has run for this job before.
pub fn ran(id: u64) {
    let now = Instant::now();
    let mut ledger = LEDGER.lock().expect("no handler panics");
    if !ledger.ran.insert(id) {
        eprintln!("job {id} ran twice");
        std::process::exit(1);
    }
    if ledger.ran.len() as u64 == ledger.wanted {
        ledger.reached = Some(now);
        REACHED.notify_one();
    }
}

fn want(jobs: u64) {
    LEDGER.lock().expect("no handler panics").wanted = jobs;
}

/// When the last of the wanted jobs began.
async fn reached() -> anyhow::Result<Instant> {
    let waited = tokio::time::timeout(Duration::from_secs(300), REACHED.notified()).await;
    let ledger = LEDGER.lock().expect("no handler panics");
    waited.with_context(|| format!("{} of {} jobs ran", ledger.ran.len(), ledger.wanted))?;
    ledger.reached.context("an instant")
}

/// Runs a peer's phase as the bench asks for it.
pub async fn run<P: Peer>() -> anyhow::Result<()> {
    let phase = match std::env::args().nth(1).as_deref() {
        Some("insert") => Phase::Insert,
        Some("process") => Phase::Process,
        Some("pick-up") => Phase::PickUp,
        other => bail!("insert, process or pick-up, not {other:?}"),
    };
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL")?;
    let jobs: u64 = std::env::var("JOBS").context("JOBS")?.parse().context("JOBS")?;
    let mut bench = BufReader::new(tokio::io::stdin()).lines();
    let peer = P::prepare(phase, &url).await?;
    if phase == Phase::PickUp {
        peer.work().await?;
        pick_up(&peer, 0..WARM_UP).await?;
    }
    say(&json!({ "ready": true }))?;
    next(&mut bench).await?.context("the bench is gone")?;
    let answer = match phase {
        Phase::Insert => {
            peer.insert(0..jobs).await?;
            json!({ "jobs": jobs })
        }
        Phase::Process => {
            want(jobs);
            peer.work().await?;
            reached().await?;
            json!({ "jobs": jobs })
        }
        Phase::PickUp => {
            let times = pick_up(&peer, WARM_UP..WARM_UP + jobs).await?;
            let microseconds: Vec<_> = times.iter().map(Duration::as_micros).collect();
            json!({ "jobs": jobs, "microseconds": microseconds })
        }
    };
    say(&answer)?;
    if let Some(line) = next(&mut bench).await? {
        bail!("{line:?} instead of an end");
    }
    // Workers run until the program ends.
    std::process::exit(0);
}

/// From just before the call that sends a job to the first line of its handler.
async fn pick_up(peer: &impl Peer, ids: Range<u64>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for id in ids {
        // The queue is idle again, and polls do not fall in step with this loop.
        tokio::time::sleep(Duration::from_micros(15_000 + id * 7_919 % 15_000)).await;
        want(id + 1);
        let sent = Instant::now();
        peer.send(id).await?;
        times.push(reached().await? - sent);
    }
    Ok(times)
}

async fn next(lines: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<Option<String>> {
    lines.next_line().await.context("the bench cannot be heard")
}

fn say(value: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
