//! R9: one job in a hundred ruins its worker, each in its own way; the others hardly notice.

use serde_json::json;

use super::books;
use super::numbers::quantile;
use super::plan::Plan;
use super::procs;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;

const NODES: usize = 4;
const POISONS: [&str; 10] = [
    "mock/echo?crash=oom",
    "mock/echo?crash=segv",
    "mock/echo?poison=exit137",
    "mock/echo?stdout=huge",
    "mock/echo?poison=forks",
    "mock/echo?poison=deaf",
    "mock/echo?poison=closed",
    "mock/echo?poison=half",
    "mock/echo?poison=nan",
    "mock/echo?poison=long",
];
/// How much slower the good ones may be.
const SLOWER_MAX: f64 = 1.5;
const GROWTH_MAX_MB: i64 = 50;

/// R9.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    // One in a hundred, of every kind.
    let good = plan.pick(1_000, 2_000);
    let stage = Stage::begin(
        plan,
        "R9",
        &[
            ("RUNLANE_WORKER_CONCURRENCY", "16"),
            ("RUNLANE_WARM_WORKERS", "4"),
            ("RUNLANE_WORKER_CANCEL_GRACE_MS", "200"),
            ("RUNLANE_WORKER_TERM_GRACE_MS", "200"),
            ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "50"),
            ("RUNLANE_WORKER_ENV", "PYTHONPATH"),
            ("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/python")),
        ],
    )
    .await?;
    let (api, client) = stage.api().await?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(stage.worker(&[]).await?);
    }
    let definition = client.definition(good / 4).await?;
    let few = client.definition(plan.pick(1, 2)).await?;
    // Warms every worker up.
    let warm = client.start(&few, &["mock/echo?delayMs=100"], "warm").await?;
    client.until_ended(&warm).await?;

    let models: Vec<String> = (0..4).map(|i| format!("mock/echo?delayMs={}", 800 + i * 100)).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let without = client.start(&definition, &models, "without").await?;
    client.until_ended(&without).await?;
    stage.quiet().await?;
    let before: Vec<i64> = nodes.iter().map(|node| procs::resident_mb(node.pid())).collect();

    // Whoever answers nothing is ended after this long.
    let params = json!({ "timeoutSeconds": 5 });
    let poison =
        json!({ "definitionId": few, "models": POISONS, "idempotencyKey": "poison", "params": params });
    let poison = client.start_as(poison).await?;
    let with = client.start(&definition, &models, "with").await?;
    client.until_ended(&with).await?;
    client.until_ended(&poison).await?;
    stage.quiet().await?;
    let growth = nodes.iter().zip(before).map(|(node, before)| procs::resident_mb(node.pid()) - before).max();

    let mut left = Left::default();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;
    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    books::verify(&stage, &[warm, without.clone(), with.clone(), poison.clone()], &mut verdict).await?;
    verdict.figure("extra_exec", executions - jobs);
    let (p99_without, p99_with) = (p99_ms(&stage, &without).await?, p99_ms(&stage, &with).await?);
    verdict.figure("p99_without_ms", p99_without.round());
    verdict.figure("p99_with_ms", p99_with.round());
    let slower = p99_with / p99_without;
    verdict.figure("slower", format!("{slower:.2}"));
    verdict.timely(slower <= SLOWER_MAX, format!("the good jobs' p99 is {slower:.2} times as long"));
    verdict.none("good_hurt", &good_hurt(&stage, &[without, with]).await?);
    verdict.none("poison_spared", &spared(&stage, &poison).await?);
    let growth = growth.unwrap_or_default();
    verdict.figure("rss_growth_mb", growth);
    verdict.must(growth < GROWTH_MAX_MB, format!("a node has grown by {growth} MB"));
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// How long the jobs of a run took from its start, in all.
async fn p99_ms(stage: &Stage, run: &str) -> anyhow::Result<f64> {
    let sql = "select extract(epoch from j.finished_at - r.created_at)::float8 * 1000
                 from run r join lane l on l.run_id = r.id and l.kind = 'probe:scenario' join current_job j on j.lane_id = l.id
                where r.id = $1::uuid";
    let times: Vec<f64> = sqlx::query_scalar(sql).bind(run).fetch_all(&stage.db).await?;
    Ok(quantile(&times, 0.99))
}

/// Good jobs that were blamed for what others did.
async fn good_hurt(stage: &Stage, runs: &[String]) -> anyhow::Result<Vec<String>> {
    let sql = "select format('job %s is %s after %s failures and %s losses alone', j.id, j.state, j.failures, j.losses_alone)
                 from lane l join current_job j on j.lane_id = l.id
                where l.run_id = any ($1::uuid[]) and (j.state <> 'completed' or j.failures > 0 or j.losses_alone > 0)";
    Ok(sqlx::query_scalar(sql).bind(runs).fetch_all(&stage.db).await?)
}

/// Poison that has not been put away: what kills its worker goes after three losses while alone, whoever answers nothing
/// after its retries.
async fn spared(stage: &Stage, run: &str) -> anyhow::Result<Vec<String>> {
    let sql = "select format('job %s (%s) is %s (%s) after %s failures and %s losses alone', j.id, l.model, j.state,
                             j.error_code, j.failures, j.losses_alone)
                 from lane l join current_job j on j.lane_id = l.id
                where l.run_id = $1::uuid and l.kind = 'probe:scenario'
                  and (j.state <> 'failed' or j.error_message is null
                       or j.losses_alone <> 3 and j.error_code <> 'timeout')";
    Ok(sqlx::query_scalar(sql).bind(run).fetch_all(&stage.db).await?)
}
