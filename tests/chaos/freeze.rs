//! R4: a node is frozen for three leases and thaws: everything that it still believes is stale.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::RngExt;
use sqlx::types::Uuid;
use tokio::time::sleep;

use super::books::{self, Killed};
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;

const CONCURRENCY: usize = 8;
const PATIENCE: Duration = Duration::from_secs(300);

/// R4.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let rounds: u32 = plan.pick(4, 50);
    // With a second's lease in either form: fifty rounds of three default leases would prove nothing more.
    let (lease_ms, renewal_ms) = (1_000, 333);
    let stage = Stage::begin(
        plan,
        "R4",
        &[("RUNLANE_LEASE_MS", &lease_ms.to_string()), ("RUNLANE_LEASE_RENEWAL_MS", &renewal_ms.to_string())],
    )
    .await?;
    let (api, client) = stage.api().await?;
    let mut nodes = vec![stage.worker(&[]).await?, stage.worker(&[]).await?];
    let definition = client.definition(plan.pick(100, 500)).await?;
    let mut rng = plan.rng();
    let mut frozen = Vec::new();
    let (mut late, mut own_kills) = (0, 0);
    let mut survivors = Vec::new();
    let mut runs = Vec::new();
    for round in 0..rounds {
        // Long enough that the freeze meets running jobs, short enough that their workers answer while it lasts.
        let delay = format!("mock/echo?delayMs={}", rng.random_range(100..400));
        let run = client.start(&definition, &[&delay], &format!("round-{round}")).await?;
        stage
            .until(
                "both nodes are busy",
                "select count(distinct node_id) = 2 from current_job where state = 'active'",
                PATIENCE,
            )
            .await?;
        let victim = &mut nodes[rng.random_range(0..2)];
        let node =
            stage.node_id(victim).await?.ok_or_else(|| anyhow::anyhow!("the node is not registered"))?;
        let workers = victim.workers();
        let before = victim.logged();
        let at = stage.now().await?;
        victim.signal(Signal::SIGSTOP)?;
        frozen.push(Killed { node, at });
        sleep(Duration::from_millis(3 * lease_ms)).await;
        victim.signal(Signal::SIGCONT)?;
        victim.logs("it registers anew", before).await?;
        victim.logs("node registered", before).await?;
        survivors.extend(workers.iter().filter(|w| w.is_running()).map(|w| format!("round {round}: {w:?}")));
        own_kills += workers.len();
        client.until_ended(&run).await?;
        runs.push(run);
    }
    stage.quiet().await?;
    let mut left = Left::default();
    late += nodes.iter().map(|node| node.count("LEASE_LOST")).sum::<usize>();
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("rounds", rounds);
    books::verify(&stage, &runs, &mut verdict).await?;
    verdict.none("written_after_loss", &written_after_loss(&stage, &frozen).await?);
    verdict.figure("late_refused", late);
    verdict.must(late > 0, "no frozen node ever came back with a result: the fence was not tried");
    verdict.none("workers_alive", &survivors);
    verdict.figure("workers_killed", own_kills);
    let extra = executions - jobs;
    verdict.figure("extra_exec", extra);
    let reclaims = books::reclaims_ms(&stage.db, &frozen).await?;
    books::explain(&stage.db, extra, &frozen, CONCURRENCY, &mut verdict).await?;
    let p99 = quantile(&reclaims, 0.99);
    verdict.figure("p99_reclaim_ms", p99.round());
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// Attempts that a frozen node ended although it had been given up before.
async fn written_after_loss(stage: &Stage, frozen: &[Killed]) -> anyhow::Result<Vec<String>> {
    let nodes: Vec<Uuid> = frozen.iter().map(|f| f.node).collect();
    let sql = "select format('job %s: claim %s of the node that was given up ended as %s', a.job_id, a.number, a.outcome)
                 from (select node_id, min(ended_at) as at from attempt
                        where node_id = any ($1) and error_code = 'node_lost' group by node_id) as lost
                 join attempt a on a.node_id = lost.node_id and a.ended_at > lost.at
                where a.error_code is distinct from 'node_lost'";
    Ok(sqlx::query_scalar(sql).bind(nodes).fetch_all(&stage.db).await?)
}
