//! R8: nodes are asked to stop while their workers run, once or twice, also over a slow network.

use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use sqlx::types::Uuid;
use tokio::time::{Instant, sleep};

use super::books;
use super::client::Client;
use super::plan::Plan;
use super::procs::Left;
use super::proxy::{Proxy, Weather};
use super::stage::Stage;
use super::verdict::Verdict;

const GRACE: Duration = Duration::from_millis(1_000);
/// What a node may need besides its grace.
const BESIDES: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(300);
/// Slow, and uneven.
const SLOW: Weather =
    Weather { latency: Duration::from_millis(20), jitter: Duration::from_millis(30), ..Weather::FAIR };

/// What the cycles showed.
#[derive(Default)]
struct Seen {
    left: Left,
    drained: Vec<(Uuid, DateTime<Utc>)>,
    exits_ms: Vec<f64>,
    wrong_exits: Vec<String>,
    late_exits: Vec<String>,
    not_ready_first: Vec<String>,
}

/// R8.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let cycles: usize = plan.pick(15, 200);
    let grace = GRACE.as_millis().to_string();
    let stage = Stage::begin(plan, "R8", &[("RUNLANE_SHUTDOWN_GRACE_MS", &grace)]).await?;
    let proxy = Proxy::seeded(stage.postgres.url(), plan.seed).await;
    proxy.weather(SLOW);
    let (api, client) = stage.api().await?;
    // As many as all cycles may take; some end within the grace, some do not.
    let definition = client.definition(cycles * 20).await?;
    let models = ["mock/echo?delayMs=50", "mock/echo?delayMs=300", "mock/echo?delayMs=2000"];
    let run = client.start(&definition, &models, "R8").await?;
    let mut rng = plan.rng();
    let mut seen = Seen::default();
    for cycle in 0..cycles {
        one(&stage, &proxy, cycle, &mut rng, &mut seen).await?;
    }
    // What was given back is finished by somebody else.
    let last = stage.worker(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "200")]).await?;
    stage.quiet().await?;
    stage.stop([last, api], &mut seen.left).await?;

    let mut verdict = Verdict::default();
    let (jobs, _) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("cycles", cycles);
    books::verify(&stage, &[run], &mut verdict).await?;
    verdict.none("wrong_exits", &seen.wrong_exits);
    for late in &seen.late_exits {
        verdict.timely(false, late);
    }
    verdict.figure("exit_max_ms", super::numbers::quantile(&seen.exits_ms, 1.0).round());
    verdict.none("not_ready_first", &seen.not_ready_first);
    verdict.none("claims_after_drain", &claims_after(&stage, &seen.drained).await?);
    // A node that is starved of its processor also loses its lease.
    for what in blamed(&stage).await? {
        verdict.timely(false, what);
    }
    verdict.none("orphans", &seen.left.running());
    drop(proxy);
    stage.end().await?;
    Ok(verdict)
}

/// Starts a node, asks it to stop while it is busy, and looks on.
async fn one(
    stage: &Stage,
    proxy: &Proxy,
    cycle: usize,
    rng: &mut ChaCha8Rng,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let url = proxy.url();
    let slow = [("DATABASE_URL", url.as_str())];
    let is_slow = cycle % 3 == 1;
    let mut node = stage.node(&["serve"], if is_slow { &slow } else { &[] }).await?;
    let probes = Client::new(vec![node.address().await?])?;
    node.registered().await?;
    let id = stage.node_id(&node).await?.ok_or_else(|| anyhow::anyhow!("the node is not registered"))?;
    stage
        .until("the node is busy", "select exists (select from current_job where state = 'active')", PATIENCE)
        .await?;
    sleep(Duration::from_millis(rng.random_range(0..300))).await;
    anyhow::ensure!(probes.probe("/ready").await == Some(200), "a node that works is not ready");
    seen.left.note(node.pid());
    let asked = Instant::now();
    node.signal(Signal::SIGTERM)?;
    // Readiness has failed before the door is closed.
    match until_not_ready(&probes).await {
        Some(503) => {}
        other => seen.not_ready_first.push(format!("cycle {cycle}: {other:?} instead of 503")),
    }
    node.logs("draining", 0).await?;
    seen.drained.push((id, stage.now().await?));
    let mut most = GRACE + BESIDES;
    if cycle % 3 == 2 {
        sleep(Duration::from_millis(rng.random_range(0..200))).await;
        // It may have ended by itself.
        if node.is_running()? {
            node.signal(Signal::SIGTERM)?;
            most = asked.elapsed() + BESIDES;
        }
    }
    let status = node.ended(PATIENCE).await?;
    let took = asked.elapsed();
    seen.exits_ms.push(took.as_secs_f64() * 1_000.0);
    if !status.success() {
        seen.wrong_exits.push(format!("cycle {cycle}: {status}"));
    }
    if took > most {
        seen.late_exits.push(format!("cycle {cycle}: ended after {took:?}, at most {most:?}"));
    }
    Ok(())
}

/// The first answer of `/ready` that is not 200; none when nobody answers any more.
async fn until_not_ready(probes: &Client) -> Option<u16> {
    loop {
        match probes.probe("/ready").await {
            Some(200) => sleep(Duration::from_millis(2)).await,
            other => return other,
        }
    }
}

/// Claims of nodes after their drain had begun.
async fn claims_after(stage: &Stage, drained: &[(Uuid, DateTime<Utc>)]) -> anyhow::Result<Vec<String>> {
    let (nodes, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = drained.iter().copied().unzip();
    let sql = "select format('job %s was claimed %s after the drain', a.job_id, a.started_at - d.at)
                 from unnest($1::uuid[], $2::timestamptz[]) as d (node, at)
                 join attempt a on a.node_id = d.node and a.started_at > d.at";
    Ok(sqlx::query_scalar(sql).bind(nodes).bind(times).fetch_all(&stage.db).await?)
}

/// Attempts that ended otherwise than completed or given back, and jobs that were blamed for it.
async fn blamed(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let sql = "select format('job %s: claim %s was %s (%s)', job_id, number, outcome, error_code)
                 from attempt where outcome not in ('completed', 'released')
                union all
               select format('job %s has %s failures and %s losses', id, failures, losses)
                 from current_job where failures + losses + throttles > 0";
    Ok(sqlx::query_scalar(sql).fetch_all(&stage.db).await?)
}
