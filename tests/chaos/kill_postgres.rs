//! R3: PostgreSQL crashes again and again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::books;
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;
use super::watch::Progress;

const NODES: usize = 3;
const CONCURRENCY: usize = 8;
/// How soon the service is ready again.
const READY_MAX_S: f64 = 5.0;

/// R3.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let crashes: u32 = plan.pick(5, 20);
    let every = Duration::from_secs(plan.pick(2, 5));
    let mut stage = Stage::begin(plan, "R3", &[("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "500")]).await?;
    let (api, client) = stage.api().await?;
    let mut nodes = vec![api];
    for _ in 0..NODES {
        nodes.push(stage.worker(&[]).await?);
    }
    let scenarios = plan.pick(300, 1_250);
    let definition = client.definition(scenarios).await?;
    // About as long as the crashes take: each job's own time is what it waits for.
    let delay = plan.pick(300, 670);
    let models: Vec<String> = (0..4).map(|i| format!("mock/echo?delayMs={}", delay + i)).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let run = client.start(&definition, &models, "R3").await?;
    let progress = Progress::watch(stage.db.clone(), client.clone(), Arc::new(Mutex::new(vec![run.clone()])));

    let mut rng = plan.rng();
    let mut ready_s = Vec::new();
    let mut data_while_down = Vec::new();
    for crash in 0..crashes {
        sleep(every.mul_f64(rng.random_range(0.5..1.5))).await;
        stage.postgres.crash().await?;
        let down = CancellationToken::new();
        let prober = tokio::spawn(probe(client.clone(), run.clone(), down.clone()));
        sleep(Duration::from_millis(rng.random_range(200..1_500))).await;
        // Only what was answered before the server is started again was surely answered without it.
        down.cancel();
        data_while_down.extend(prober.await?);
        stage.postgres.restart().await?;
        let back = Instant::now();
        while client.probe("/ready").await != Some(200) {
            anyhow::ensure!(back.elapsed() < Duration::from_secs(60), "not ready after crash {crash}");
            sleep(Duration::from_millis(20)).await;
        }
        ready_s.push(back.elapsed().as_secs_f64());
    }
    let mut exited = Vec::new();
    for node in &mut nodes {
        if !node.is_running()? {
            exited.push(format!("node {} has ended", node.pid()));
        }
    }
    let state = client.until_ended(&run).await?;
    stage.quiet().await?;
    let seen = progress.end().await?;

    let mut left = Left::default();
    stage.stop(nodes, &mut left).await?;
    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("crashes", crashes);
    books::verify(&stage, &[run], &mut verdict).await?;
    let extra = executions - jobs;
    verdict.figure("extra_exec", extra);
    let most = i64::from(crashes) * i64::try_from(NODES * CONCURRENCY)?;
    verdict.timely(extra <= most, format!("{extra} executions too many; the crashes explain {most}"));
    let completed = state["progress"]["completed"].as_i64();
    verdict.must(completed == Some(jobs), format!("not every job completed: {state}"));
    verdict.none("exited", &exited);
    verdict.none("data_while_down", &data_while_down);
    let slowest = quantile(&ready_s, 1.0);
    verdict.figure("ready_max_s", format!("{slowest:.2}"));
    verdict.timely(slowest <= READY_MAX_S, format!("ready only after {slowest:.2} s"));
    verdict.figure("samples", seen.samples);
    verdict.none("samples_wrong", &seen.wrong);
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// Asks for data as long as there is no database; nobody may answer with any.
async fn probe(client: super::client::Client, run: String, down: CancellationToken) -> Vec<String> {
    let query = "query($id: ID!) { run(id: $id) { status } queueStatus { totalPending } }";
    let mut wrong = Vec::new();
    while !down.is_cancelled() {
        let Ok(answer) = client.post(query, &serde_json::json!({ "id": run })).await else { continue };
        if down.is_cancelled() {
            break;
        }
        if answer.status != 503 {
            wrong.push(format!("{answer:?}"));
        }
    }
    wrong
}
