//! R10: many idle nodes, then one job, then very many, then all nodes start at once.

use std::time::Duration;

use futures_util::future::try_join_all;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use super::books;
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;

/// The defaults, on which what an idle node costs depends.
const POLL_S: f64 = 5.0;
const RENEWAL_S: f64 = 2.0;
const WAKE_MAX_MS: f64 = 100.0;
const CLAIMS_A_JOB_MAX: f64 = 1.05;
const IDLE_CPU_MAX_PERCENT: f64 = 5.0;

/// R10.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    // The catalogue's 200 would need 1,400 connections and 200 times Python; what is asked for does not depend on it.
    let nodes = plan.pick(10, 40);
    let settings = [
        ("RUNLANE_LEASE_MS", "6000"),
        ("RUNLANE_LEASE_RENEWAL_MS", "2000"),
        ("RUNLANE_ORCHESTRATOR_POOL_SIZE", "3"),
    ];
    let options = [("track_functions", "pl"), ("max_connections", "400")];
    let stage = Stage::begin_with(plan, "R10", &options, &settings).await?;
    let (api, client) = stage.api().await?;
    let start = || async { try_join_all((0..nodes).map(|_| stage.worker(&[]))).await };
    let mut herd = start().await?;
    let one = client.definition(1).await?;
    let bulk = client.definition(plan.pick(750, 2_500)).await?;
    let mut runs = vec![client.start(&one, &["mock/echo"], "warm").await?];
    stage.quiet().await?;
    // What starting has left to do.
    sleep(Duration::from_secs(3)).await;

    let idle_s = plan.pick(10, 60);
    log_statements(&stage, "all").await?;
    let (from, cpu, began) = (stage.postgres.log_length()?, stage.postgres.cpu()?, Instant::now());
    sleep(Duration::from_secs(idle_s)).await;
    let (to, cpu, time) =
        (stage.postgres.log_length()?, stage.postgres.cpu()? - cpu, began.elapsed().as_secs_f64());
    log_statements(&stage, "none").await?;
    let per_second = queries(&stage.postgres.log(from, to)?) as f64 / time;
    let percent = cpu.as_secs_f64() / time * 100.0;

    let singles = plan.pick(10, 100);
    let before = claims(&stage).await?;
    let mut wakes = Vec::new();
    for i in 0..singles {
        let run = client.start(&one, &["mock/echo"], &format!("single-{i}")).await?;
        client.until_ended(&run).await?;
        stage.quiet().await?;
        wakes.push(wake_ms(&stage, &run).await?);
        runs.push(run);
    }
    let single_claims = (claims(&stage).await? - before) as f64 / f64::from(singles);

    let before = claims(&stage).await?;
    let models: Vec<String> = (0..4).map(|i| format!("mock/echo?delayMs={i}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let run = client.start(&bulk, &models, "bulk").await?;
    client.until_ended(&run).await?;
    stage.quiet().await?;
    let bulk_jobs: i64 = sqlx::query_scalar("select sum(total) from lane where run_id = $1::uuid")
        .bind(&run)
        .fetch_one(&stage.db)
        .await?;
    let bulk_claims = (claims(&stage).await? - before) as f64 / bulk_jobs as f64;
    runs.push(run);

    // All at once, with work that waits.
    let mut left = Left::default();
    for node in herd.drain(..) {
        left.note(node.pid());
        node.kill().await?;
    }
    let run = client.start(&bulk, &models[..1], "restart").await?;
    let herd = start().await?;
    client.until_ended(&run).await?;
    stage.quiet().await?;
    runs.push(run);
    stage.stop(herd.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    verdict.figure("nodes", nodes);
    verdict.figure("jobs", books::executions(&stage.db).await?.0);
    books::verify(&stage, &runs, &mut verdict).await?;
    let wake = quantile(&wakes, 0.99);
    verdict.figure("p99_wake_ms", wake.round());
    verdict.timely(wake <= WAKE_MAX_MS, format!("an idle node woke after {wake:.0} ms"));
    // Everybody who hears of the one job asks for it: that is what makes it quick.
    verdict.figure("claims_for_a_single", format!("{single_claims:.1}"));
    verdict.figure("claims_a_job", format!("{bulk_claims:.2}"));
    verdict.must(bulk_claims <= CLAIMS_A_JOB_MAX, format!("{bulk_claims:.2} claims a job"));
    // A renewal and a sweep each time, the polls, and what tidying up asks now and then.
    let most = nodes as f64 * (1.0 / POLL_S * 1.2 + 2.0 / RENEWAL_S + 0.2) + 2.0;
    verdict.figure("idle_queries_s", format!("{per_second:.1}"));
    verdict.timely(
        per_second <= most,
        format!("{per_second:.1} idle queries a second; {most:.1} are explained"),
    );
    verdict.figure("idle_cpu_percent", format!("{percent:.1}"));
    verdict.timely(
        percent < IDLE_CPU_MAX_PERCENT,
        format!("PostgreSQL takes {percent:.1} % of a core when idle"),
    );
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// Calls of the claiming function so far; sessions report them after at most a second when they are idle.
async fn claims(stage: &Stage) -> anyhow::Result<i64> {
    sleep(Duration::from_millis(1_200)).await;
    let sql =
        "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions where funcname = 'claim_jobs'";
    Ok(sqlx::query_scalar(sql).fetch_one(&stage.db).await?)
}

/// Has the server log statements from now on, or stop.
async fn log_statements(stage: &Stage, which: &str) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(format!("alter system set log_statement = '{which}'")))
        .execute(&stage.db)
        .await?;
    sqlx::query("select pg_reload_conf()").execute(&stage.db).await?;
    Ok(())
}

/// Statements that were executed, but for what begins and ends transactions. The server's own counters come too late:
/// idle sessions report after ten seconds.
fn queries(log: &str) -> usize {
    log.lines().filter(|line| line.contains("LOG:  execute ")).count()
}

/// From the commit of a run to the claim of its first job.
async fn wake_ms(stage: &Stage, run: &str) -> anyhow::Result<f64> {
    let sql = "select extract(epoch from min(a.started_at) - r.created_at)::float8 * 1000
                 from run r join lane l on l.run_id = r.id and l.kind = 'probe:scenario'
                 join current_job j on j.lane_id = l.id join attempt a on a.job_id = j.id
                where r.id = $1::uuid group by r.id";
    Ok(sqlx::query_scalar(sql).bind(run).fetch_one(&stage.db).await?)
}
