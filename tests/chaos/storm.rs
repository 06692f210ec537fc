//! R11: everything fails at once, on something that comes back later.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::books;
use super::plan::Plan;
use super::procs::Left;
use super::stage::{self, Stage};
use super::verdict::Verdict;

const NODES: usize = 3;
const BINS: usize = 10;
const STEADY_MAX: f64 = 1.2;

/// R11.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let (scenarios, outage) = (plan.pick(300, 1_250), Duration::from_secs(plan.pick(8, 60)));
    // The first wait is between half of this and all of it.
    let base_ms: u64 = plan.pick(2_000, 5_000);
    let out = stage::root().join("outage");
    let stage = Stage::begin(
        plan,
        "R11",
        &[
            ("RUNLANE_WORKER_CONCURRENCY", "32"),
            ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", &base_ms.to_string()),
            ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", &(base_ms * 4).to_string()),
            ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "50"),
            ("RUNLANE_WORKER_ENV", "PYTHONPATH,CHAOS_OUTAGE"),
            ("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/python")),
            ("CHAOS_OUTAGE", &out.to_string_lossy()),
        ],
    )
    .await?;
    let (api, client) = stage.api().await?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(stage.worker(&[]).await?);
    }
    let definition = client.definition(scenarios).await?;
    let models: Vec<String> = (0..4).map(|i| format!("mock/echo?outage=1&n={i}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();

    std::fs::write(&out, "")?;
    let began = Instant::now();
    let run = client.start(&definition, &models, "storm").await?;
    // The waits that follow the first failure, as they are planned: each is seen before it is over.
    let mut waits = std::collections::BTreeMap::new();
    while began.elapsed() < outage {
        let rows: Vec<(i64, f64)> = sqlx::query_as(
            "select j.id, extract(epoch from j.run_at - a.ended_at)::float8
               from current_job j join attempt a on a.job_id = j.id and a.number = 1
              where j.state = 'pending' and j.claims = 1 and j.failures = 1",
        )
        .fetch_all(&stage.db)
        .await?;
        waits.extend(rows);
        sleep(Duration::from_millis(200)).await;
    }
    std::fs::remove_file(&out)?;
    let back = Instant::now();
    client.until_ended(&run).await?;
    let drained = back.elapsed();

    let steady = client.start(&definition, &models, "steady").await?;
    client.until_ended(&steady).await?;
    stage.quiet().await?;
    let (claims, jobs): (i64, i64) = sqlx::query_as(
        "select sum(j.claims), count(*) from lane l join current_job j on j.lane_id = l.id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(&steady)
    .fetch_one(&stage.db)
    .await?;
    let mut left = Left::default();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    verdict.figure("jobs", books::executions(&stage.db).await?.0);
    books::verify(&stage, &[run, steady], &mut verdict).await?;
    let waits: Vec<f64> = waits.into_values().collect();
    verdict.figure("waits", waits.len());
    verdict.must(waits.len() >= scenarios * 2, format!("only {} waits were seen", waits.len()));
    let (low, high) = (base_ms as f64 / 1_000.0, base_ms as f64 / 500.0);
    let outside = waits.iter().filter(|&&wait| wait < low || wait > high + 0.001).count();
    verdict.must(outside == 0, format!("{outside} waits are outside of {low} to {high} s"));
    let chi = chi_square(&waits, low, high);
    verdict.figure("chi2_9", format!("{chi:.1}"));
    // With nine degrees of freedom: p > 0.01. Every day that would be a false alarm in a hundred, so there p > 0.0001.
    let most = plan.pick(33.72, 21.67);
    verdict.must(chi <= most, format!("the waits are not uniform: {chi:.1}, at most {most}"));
    let ratio = claims as f64 / jobs as f64;
    verdict.figure("claims_a_job_after", format!("{ratio:.2}"));
    verdict.must(ratio <= STEADY_MAX, "jobs are still retried when everything is well");
    verdict.figure("drained_s", format!("{:.1}", drained.as_secs_f64()));
    verdict.timely(drained <= 2 * outage, format!("the backlog took {drained:?} after {outage:?}"));
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// How far the values are from being spread evenly.
fn chi_square(values: &[f64], low: f64, high: f64) -> f64 {
    let mut bins = [0_u32; BINS];
    for value in values {
        let bin = ((value - low) / (high - low) * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    let expected = values.len() as f64 / BINS as f64;
    bins.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
}
