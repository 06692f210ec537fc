//! R6: the network to PostgreSQL is a black hole, slow, narrow, or reset all the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::books;
use super::client::Client;
use super::plan::Plan;
use super::procs::Left;
use super::proxy::{Harm, Proxy, Weather};
use super::stage::Stage;
use super::verdict::Verdict;
use super::watch::Progress;

const WORKERS: usize = 2;
const CONNECT: Duration = Duration::from_secs(3);
/// Connections of each process: two pools, those for leases and for listening.
const BACKENDS_API: i64 = 8;
const BACKENDS_WORKER: i64 = 3 + 2 + 2;

/// R6.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let lasts = Duration::from_secs(plan.pick(3, 10));
    let connect = CONNECT.as_millis().to_string();
    let stage = Stage::begin(
        plan,
        "R6",
        &[("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", &connect), ("RUNLANE_STATEMENT_TIMEOUT_MS", "3000")],
    )
    .await?;
    let proxy = Proxy::seeded(stage.postgres.url(), plan.seed).await;
    let url = proxy.url();
    let behind = [("DATABASE_URL", url.as_str())];
    let mut api = stage.node(&["serve", "--execute=false"], &behind).await?;
    let client = Client::new(vec![api.address().await?])?;
    let mut nodes = Vec::new();
    for _ in 0..WORKERS {
        nodes.push(stage.worker(&behind).await?);
    }
    let definition = client.definition(200).await?;
    let one = client.definition(1).await?;
    let started = Arc::new(Mutex::new(Vec::new()));
    let progress = Progress::watch(stage.db.clone(), client.clone(), started);
    let done = CancellationToken::new();
    let feeder = tokio::spawn(feed(client.clone(), definition.clone(), done.clone()));

    let ms = Duration::from_millis;
    let mut recoveries = Vec::new();
    for (name, weather) in [
        ("blackhole", Some(Weather { blackhole: true, ..Weather::FAIR })),
        ("latency", Some(Weather { latency: ms(300), jitter: ms(200), ..Weather::FAIR })),
        ("rate", Some(Weather { rate: Some(20_000), ..Weather::FAIR })),
        ("reset", None),
    ] {
        sleep(Duration::from_secs(1)).await;
        if let Some(weather) = weather {
            proxy.weather(weather);
            sleep(lasts).await;
            proxy.weather(Weather::FAIR);
        } else {
            for _ in 0..lasts.as_secs() {
                proxy.harm_all(Harm::Reset);
                sleep(Duration::from_secs(1)).await;
            }
        }
        let over = Instant::now();
        // It has recovered when a run that starts now is answered, executed and seen to its end. Its jobs must not wait
        // for what has piled up meanwhile.
        let probe = client.start_as(first(&one, &format!("after-{name}"))).await?;
        client.until_ended(&probe).await?;
        recoveries.push((name, over.elapsed()));
    }
    done.cancel();
    let mut runs = feeder.await??;
    stage.quiet().await?;
    let seen = progress.end().await?;
    let most = BACKENDS_API + BACKENDS_WORKER * WORKERS as i64;
    let backends = backends(&stage, most).await?;
    let mut left = Left::default();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    runs.sort();
    books::verify(&stage, &runs, &mut verdict).await?;
    verdict.figure("extra_exec", executions - jobs);
    for (name, took) in &recoveries {
        verdict.timely(*took <= 2 * CONNECT, format!("recovered from {name} only after {took:?}"));
    }
    let slowest = recoveries.iter().map(|(_, took)| *took).max().unwrap_or_default();
    verdict.figure("recovery_max_ms", slowest.as_millis());
    verdict.figure("backends", backends);
    verdict.must(backends <= most, format!("{backends} backends are left; the pools have {most}"));
    verdict.figure("samples", seen.samples);
    verdict.none("samples_wrong", &seen.wrong);
    verdict.none("orphans", &left.running());
    drop(proxy);
    stage.end().await?;
    Ok(verdict)
}

/// A run before all others.
fn first(definition: &str, key: &str) -> Value {
    json!({ "definitionId": definition, "models": ["mock/echo"], "idempotencyKey": key, "priority": "HIGH" })
}

/// Fifty jobs a second, as far as somebody answers.
async fn feed(client: Client, definition: String, done: CancellationToken) -> anyhow::Result<Vec<String>> {
    let mut runs = Vec::new();
    for i in 0.. {
        if done.is_cancelled() {
            break;
        }
        runs.push(client.start(&definition, &["mock/echo?delayMs=20"], &format!("run-{i}")).await?);
        sleep(Duration::from_secs(4)).await;
    }
    Ok(runs)
}

/// How many connections the processes hold when they have let go of all that they do not need.
async fn backends(stage: &Stage, most: i64) -> anyhow::Result<i64> {
    let sql = "select count(*) from pg_stat_activity where application_name like 'runlane%'";
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let n: i64 = sqlx::query_scalar(sql).fetch_one(&stage.db).await?;
        if n <= most || Instant::now() >= deadline {
            return Ok(n);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
