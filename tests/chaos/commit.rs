//! R5: the network fails exactly at COMMIT, before and after, and nobody is told: did it commit?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::books;
use super::client::Client;
use super::plan::Plan;
use super::procs::Left;
use super::proxy::{Harm, Point, Proxy, Strike, work};
use super::stage::Stage;
use super::verdict::Verdict;

const POINTS: [(&str, &str); 5] = [
    ("claim", work::CLAIM),
    ("heartbeat", work::HEARTBEAT),
    ("complete", work::END),
    ("submit", work::START),
    ("pause", work::QUEUE),
];

/// R5.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let times: u32 = plan.pick(4, 200);
    let patience = Duration::from_secs(plan.pick(60, 1_800));
    let bounds = [
        ("RUNLANE_STATEMENT_TIMEOUT_MS", "2000"),
        ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "1000"),
        ("RUNLANE_HTTP_REQUEST_TIMEOUT_MS", "3000"),
    ];
    let stage = Stage::begin(plan, "R5", &bounds).await?;
    let proxy = Proxy::seeded(stage.postgres.url(), plan.seed).await;
    let url = proxy.url();
    let behind = [("DATABASE_URL", url.as_str())];
    let mut api = stage.node(&["serve", "--execute=false"], &behind).await?;
    let client = Client::new(vec![api.address().await?])?;
    let nodes = [stage.worker(&behind).await?, stage.worker(&behind).await?];
    let definitions = (client.definition(300).await?, client.definition(1).await?);

    let done = CancellationToken::new();
    let submits = Arc::new(AtomicBool::new(false));
    let feeder =
        Feeder { client: client.clone(), definitions, submits: Arc::clone(&submits), done: done.clone() };
    let feeder = tokio::spawn(feeder.feed());
    let pauser = tokio::spawn(pause(client.clone(), done.clone()));

    let mut struck = 0;
    let mut missed = Vec::new();
    for (name, part) in POINTS {
        submits.store(name == "submit", Ordering::Relaxed);
        // Starts are many already.
        let chance = if name == "submit" { 1.0 } else { 0.5 };
        let at = Strike::at(Point::Commit(part)).times(times).chance(chance);
        for (how, strike) in [
            ("cut before", at.before(Harm::Cut)),
            ("cut during", at.during(Harm::Cut)),
            ("cut after", at.after(Harm::Cut)),
            ("mute after", at.after(Harm::Mute)),
        ] {
            let counter = proxy.strike(strike);
            if timeout(patience, counter.struck(times)).await.is_err() {
                missed.push(format!("{name}, {how}: {} of {times} within {patience:?}", counter.count()));
            }
            struck += counter.count();
            proxy.calm();
        }
    }
    done.cancel();
    let acknowledged = feeder.await??;
    pauser.await??;
    stage.quiet().await?;
    let mut left = Left::default();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("strikes", struck);
    verdict.none("strikes_missed", &missed);
    let runs: Vec<String> = acknowledged.iter().map(|(_, id)| id.clone()).collect();
    books::verify(&stage, &runs, &mut verdict).await?;
    verdict.none("keys_lost", &books::lost_runs(&stage.db, &acknowledged).await?);
    verdict.figure("extra_exec", executions - jobs);
    verdict.none("orphans", &left.running());
    drop(proxy);
    stage.end().await?;
    Ok(verdict)
}

/// Keeps everybody busy.
struct Feeder {
    client: Client,
    /// One of many scenarios, and one of a single one.
    definitions: (String, String),
    /// Whether many starts are wanted now, rather than many jobs.
    submits: Arc<AtomicBool>,
    done: CancellationToken,
}

impl Feeder {
    /// Starts runs one after the other; returns their keys and ids.
    async fn feed(self) -> anyhow::Result<Vec<(String, String)>> {
        let mut acknowledged = Vec::new();
        for i in 0.. {
            if self.done.is_cancelled() {
                break;
            }
            let key = format!("run-{i}");
            if self.submits.load(Ordering::Relaxed) {
                let run = self.client.start(&self.definitions.1, &["mock/echo"], &key).await?;
                acknowledged.push((key, run));
            } else {
                let run = self.client.start(&self.definitions.0, &["mock/echo?delayMs=60"], &key).await?;
                self.client.until_ended(&run).await?;
                acknowledged.push((key, run));
            }
        }
        Ok(acknowledged)
    }
}

/// Pauses the queue for a moment, again and again.
async fn pause(client: Client, done: CancellationToken) -> anyhow::Result<()> {
    while !done.is_cancelled() {
        client.insist("mutation { pauseQueue(reason: \"chaos\") { isPaused } }", &Value::Null).await?;
        sleep(Duration::from_millis(30)).await;
        client.insist("mutation { resumeQueue { isPaused } }", &Value::Null).await?;
        sleep(Duration::from_millis(120)).await;
    }
    Ok(())
}
