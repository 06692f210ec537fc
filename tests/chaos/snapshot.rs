//! R12: somebody holds an old snapshot, so that nothing that dies can be removed.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep};

use super::books;
use super::client::Client;
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;

const NODES: usize = 2;
/// How much slower claims may become.
const SLOWER_MAX: f64 = 3.0;

/// R12.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let lasts = Duration::from_secs(plan.pick(12, 600));
    // Every statement's time is in the server's log.
    let stage = Stage::begin_with(plan, "R12", &[("log_min_duration_statement", "0")], &[]).await?;
    let (api, client) = stage.api().await?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(stage.worker(&[]).await?);
    }
    let definition = client.definition(400).await?;
    let mut runs = vec![client.start(&definition, &["mock/echo"], "warm").await?];
    stage.quiet().await?;

    let before = stage.postgres.log_length()?;
    load(&client, &definition, "before", lasts.min(Duration::from_secs(30)), &mut runs).await?;
    let between = stage.postgres.log_length()?;
    let mut holder = PgConnection::connect(stage.postgres.url()).await?;
    let mut snapshot = holder.begin_with("begin isolation level repeatable read").await?;
    sqlx::query("select count(*) from current_job").execute(&mut *snapshot).await?;
    load(&client, &definition, "held", lasts, &mut runs).await?;
    let after = stage.postgres.log_length()?;
    snapshot.rollback().await?;
    holder.close().await?;
    stage.quiet().await?;
    let mut left = Left::default();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    verdict.figure("jobs", books::executions(&stage.db).await?.0);
    books::verify(&stage, &runs, &mut verdict).await?;
    let (free, held) = (claims_ms(&stage, before, between)?, claims_ms(&stage, between, after)?);
    verdict.must(
        free.len() > 50 && held.len() > 50,
        format!("{} and {} claims are too few", free.len(), held.len()),
    );
    let (free, held) = (quantile(&free, 0.99), quantile(&held, 0.99));
    verdict.figure("p99_claim_ms", format!("{free:.2}"));
    verdict.figure("p99_claim_held_ms", format!("{held:.2}"));
    verdict.timely(held <= SLOWER_MAX * free, format!("claims take {:.1} times as long", held / free));
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// A hundred jobs a second.
async fn load(
    client: &Client,
    definition: &str,
    name: &str,
    lasts: Duration,
    runs: &mut Vec<String>,
) -> anyhow::Result<()> {
    let end = Instant::now() + lasts;
    let mut i = 0;
    while Instant::now() < end {
        runs.push(client.start(definition, &["mock/echo?delayMs=5"], &format!("{name}-{i}")).await?);
        i += 1;
        sleep(Duration::from_secs(4)).await;
    }
    Ok(())
}

/// How long each claim took according to the server's log between two places.
fn claims_ms(stage: &Stage, from: usize, to: usize) -> anyhow::Result<Vec<f64>> {
    let log = stage.postgres.log(from, to)?;
    // `LOG:  duration: 0.412 ms  execute sqlx_s_3: call claim_with_scenarios(…`
    let claims =
        log.lines().filter(|line| line.contains("execute") && line.contains("claim_with_scenarios("));
    Ok(claims.filter_map(|line| line.split("duration: ").nth(1)?.split(' ').next()?.parse().ok()).collect())
}
