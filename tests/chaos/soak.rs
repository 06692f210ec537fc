//! R16: everything at once for a long time, and nothing grows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::books;
use super::client::Client;
use super::plan::Plan;
use super::procs::{self, Left};
use super::proxy::{Harm, Proxy, Weather};
use super::stage::Stage;
use super::verdict::Verdict;
use super::watch::Progress;

const NODES: usize = 3;
/// Megabytes an hour, by a straight line through the second half.
const SLOPE_MAX_MB_H: f64 = 2.0;
/// In a few minutes a slope says nothing; then no more than this in all.
const GROWTH_MAX_MB: f64 = 25.0;
/// Between two starts of runs.
const PACE: Duration = Duration::from_millis(4_000);
const BLOAT_MAX: f64 = 3.0;

/// One look at a process.
struct Look {
    at_s: f64,
    rss_mb: f64,
    fds: usize,
}

/// R16.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let lasts = Duration::from_secs(plan.pick(40, 7_200));
    let scenarios = 56;
    let stage = Stage::begin(plan, "R16", &[]).await?;
    let proxy = Proxy::seeded(stage.postgres.url(), plan.seed).await;
    let url = proxy.url();
    let behind = [("DATABASE_URL", url.as_str())];
    let mut api = stage.node(&["serve", "--execute=false"], &behind).await?;
    let client = Client::new(vec![api.address().await?])?;
    // One lives as long as the test, the others are killed.
    let steady = stage.worker(&behind).await?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(stage.worker(&behind).await?);
    }
    let definition = client.definition(scenarios).await?;
    let started = Arc::new(Mutex::new(Vec::new()));
    let progress = Progress::watch(stage.db.clone(), client.clone(), Arc::clone(&started));
    let began = Instant::now();
    let end = began + lasts;
    let feeder = tokio::spawn(feed(client.clone(), definition, Arc::clone(&started), end));

    let mut rng = plan.rng();
    let mut left = Left::default();
    let mut looks = [Vec::new(), Vec::new()];
    let mut faults = 0;
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.random_range(1_500..2_500))).await;
        for (looks, pid) in looks.iter_mut().zip([api.pid(), steady.pid()]) {
            let at_s = began.elapsed().as_secs_f64();
            looks.push(Look {
                at_s,
                rss_mb: procs::resident_kb(pid) as f64 / 1_024.0,
                fds: procs::open_files(pid),
            });
        }
        faults += 1;
        match rng.random_range(0..4) {
            0 => proxy.harm_all(Harm::Reset),
            1 => {
                let weather =
                    Weather { latency: Duration::from_millis(rng.random_range(5..50)), ..Weather::FAIR };
                proxy.weather(weather);
                sleep(Duration::from_secs(1)).await;
                proxy.weather(Weather::FAIR);
            }
            _ => {
                let victim = nodes.swap_remove(rng.random_range(0..nodes.len()));
                left.note(victim.pid());
                victim.kill().await?;
                nodes.push(stage.worker(&behind).await?);
            }
        }
    }
    feeder.await??;
    stage.quiet().await?;
    let seen = progress.end().await?;
    let most = 8 + 7 * (NODES as i64 + 1);
    let backends = backends(&stage.db, most).await?;
    stage.stop(nodes.into_iter().chain([steady, api]), &mut left).await?;

    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("faults", faults);
    let runs = started.lock().unwrap_or_else(PoisonError::into_inner).clone();
    books::verify(&stage, &runs, &mut verdict).await?;
    verdict.figure("extra_exec", executions - jobs);
    for (name, looks) in ["api", "node"].into_iter().zip(&looks) {
        judge(plan, name, looks, &mut verdict);
    }
    verdict.figure("backends", backends);
    verdict.must(backends <= most, format!("{backends} backends; the pools have {most}"));
    let bloat = bloat(&stage.db).await?;
    verdict.figure("bloat", format!("{bloat:.1}"));
    verdict.must(bloat <= BLOAT_MAX, format!("tables and indexes are {bloat:.1} times as large as new ones"));
    verdict.figure("samples", seen.samples);
    verdict.none("samples_wrong", &seen.wrong);
    verdict.none("orphans", &left.running());
    drop(proxy);
    stage.end().await?;
    Ok(verdict)
}

async fn feed(
    client: Client,
    definition: String,
    started: Arc<Mutex<Vec<String>>>,
    end: Instant,
) -> anyhow::Result<()> {
    let models = ["mock/echo?delayMs=5", "mock/echo?delayMs=20"];
    for i in 0.. {
        if Instant::now() >= end {
            break;
        }
        let run = client.start(&definition, &models, &format!("run-{i}")).await?;
        started.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        // The catalogue asks for 28 jobs a second: 200,000 in two hours.
        sleep(PACE).await;
    }
    Ok(())
}

/// Nothing may grow in the second half, when everything has been used once.
fn judge(plan: Plan, name: &'static str, looks: &[Look], verdict: &mut Verdict) {
    let half = &looks[looks.len() / 2..];
    let (Some(first), Some(last)) = (half.first(), half.last()) else {
        return verdict.must(false, "too short to look at anything");
    };
    let growth = last.rss_mb - first.rss_mb;
    let slope = slope(half) * 3_600.0;
    let fds = half.iter().map(|look| look.fds).max().unwrap_or_default();
    let fds_first = looks[..looks.len() / 2].iter().map(|look| look.fds).max().unwrap_or_default();
    verdict.figure(if name == "api" { "api_rss_mb" } else { "node_rss_mb" }, format!("{:.0}", last.rss_mb));
    verdict.figure(if name == "api" { "api_mb_h" } else { "node_mb_h" }, format!("{slope:.1}"));
    verdict.figure(if name == "api" { "api_fds" } else { "node_fds" }, fds);
    let grows = if plan.is_long { slope > SLOPE_MAX_MB_H } else { growth > GROWTH_MAX_MB };
    verdict.must(!grows, format!("{name} grows: {growth:.1} MB, {slope:.1} MB an hour"));
    verdict.must(fds <= fds_first + 10, format!("{name} had {fds_first} open files, then {fds}"));
}

/// Of the straight line that is nearest to all looks, in megabytes a second.
fn slope(looks: &[Look]) -> f64 {
    let n = looks.len() as f64;
    let (mean_x, mean_y) =
        (looks.iter().map(|l| l.at_s).sum::<f64>() / n, looks.iter().map(|l| l.rss_mb).sum::<f64>() / n);
    let over: f64 = looks.iter().map(|l| (l.at_s - mean_x) * (l.rss_mb - mean_y)).sum();
    let under: f64 = looks.iter().map(|l| (l.at_s - mean_x).powi(2)).sum();
    if under == 0.0 { 0.0 } else { over / under }
}

/// How many there are once those of nodes that were killed have noticed it: one that works sees it when it answers.
async fn backends(db: &PgPool, most: i64) -> anyhow::Result<i64> {
    let sql = "select count(*) from pg_stat_activity where application_name like 'runlane%'";
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let backends: i64 = sqlx::query_scalar(sql).fetch_one(db).await?;
        if backends <= most || Instant::now() >= until {
            return Ok(backends);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// How much larger the tables of jobs and their indexes are than fresh ones with the same rows.
async fn bloat(db: &PgPool) -> anyhow::Result<f64> {
    let size = "select sum(pg_total_relation_size(c.oid))::float8 from pg_class c
                 where c.relname in ('run', 'lane', 'job', 'past_attempt', 'transcript') and c.relkind = 'r'";
    let used: f64 = sqlx::query_scalar(size).fetch_one(db).await?;
    sqlx::raw_sql("vacuum full run, lane, job, past_attempt, transcript").execute(db).await?;
    let fresh: f64 = sqlx::query_scalar(size).fetch_one(db).await?;
    Ok(used / fresh)
}
