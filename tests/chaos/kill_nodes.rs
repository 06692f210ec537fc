//! R1: nodes are killed one after the other while jobs run. R14: and the queue is paused all the time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::books::{self, Killed};
use super::client::Client;
use super::node::Node;
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::Stage;
use super::verdict::Verdict;
use super::watch::{Pauses, Progress, Window};

const NODES: usize = 4;
const CONCURRENCY: usize = 8;
/// Jobs of 5 to 50 ms.
const MODELS: [&str; 4] =
    ["mock/echo?delayMs=5", "mock/echo?delayMs=15", "mock/echo?delayMs=30", "mock/echo?delayMs=50"];

/// R1.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    play(plan, "R1", None).await
}

/// R14.
pub async fn run_paused(plan: Plan) -> anyhow::Result<Verdict> {
    play(plan, "R14", Some(Duration::from_millis(200))).await
}

async fn play(plan: Plan, name: &str, pause_every: Option<Duration>) -> anyhow::Result<Verdict> {
    let time = Duration::from_secs(plan.pick(16, 300));
    let kill_every = Duration::from_millis(plan.pick(1_000, 2_000));
    // Runs are started all the time, so that kills find jobs; 70 to 80 jobs a second leave slots free, so that a claim
    // waits for its node to be found dead and not for its turn.
    let (runs, scenarios) = plan.pick((8, 40), (20, 250));
    let mut stage =
        Stage::begin(plan, name, &[("RUNLANE_WORKER_CONCURRENCY", &CONCURRENCY.to_string())]).await?;
    let (api, client) = stage.api().await?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(stage.worker(&[]).await?);
    }
    let definition = client.definition(scenarios).await?;
    let started = Arc::new(Mutex::new(Vec::new()));
    let progress = Progress::watch(stage.db.clone(), client.clone(), Arc::clone(&started));
    let pauses = pause_every.map(|every| Pauses::begin(stage.db.clone(), client.clone(), every));

    let feeder = {
        let (client, started, definition) = (client.clone(), Arc::clone(&started), definition.clone());
        tokio::spawn(async move {
            for i in 0..runs {
                let run = client.start(&definition, &MODELS, &format!("run-{i}")).await?;
                started.lock().unwrap_or_else(PoisonError::into_inner).push(run);
                sleep(time / runs).await;
            }
            anyhow::Ok(())
        })
    };
    let mut left = Left::default();
    let killed = kill(&stage, &mut nodes, &mut left, Instant::now() + time, kill_every).await?;
    feeder.await??;
    let windows = match pauses {
        Some(pauses) => {
            let mut windows = pauses.end().await?;
            windows.push(pause_through_a_crash(&mut stage, &client).await?);
            Some(windows)
        }
        None => None,
    };
    stage.quiet().await?;
    let seen = progress.end().await?;

    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;
    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    verdict.figure("kills", killed.len());
    let acknowledged = started.lock().unwrap_or_else(PoisonError::into_inner).clone();
    books::verify(&stage, &acknowledged, &mut verdict).await?;
    let extra = executions - jobs;
    verdict.figure("extra_exec", extra);
    let most = i64::try_from(killed.len() * CONCURRENCY)?;
    verdict.timely(extra <= most, format!("{extra} executions too many; the kills explain {most}"));
    verdict.figure("samples", seen.samples);
    verdict.none("samples_wrong", &seen.wrong);
    let reclaims = books::reclaims_ms(&stage.db, &killed).await?;
    let p99 = quantile(&reclaims, 0.99);
    verdict.figure("reclaims", reclaims.len());
    verdict.figure("p99_reclaim_ms", p99.round());
    match windows {
        None => {
            verdict.must(!reclaims.is_empty(), "no kill hit a job");
            let most = (plan.lease_ms() + plan.renewal_ms()) as f64;
            verdict.timely(
                p99 <= most,
                format!("re-claim took {p99:.0} ms; a lease and a sweep are {most:.0} ms"),
            );
        }
        // Nothing is claimed while it is paused, so no time from kill to claim can be demanded.
        Some(windows) => {
            verdict.figure("pauses", windows.len());
            let acts: i64 = sqlx::query_scalar(
                "select count(*) from audit where action in ('pauseQueue', 'resumeQueue')",
            )
            .fetch_one(&stage.db)
            .await?;
            let most = 2 * i64::try_from(windows.len())?;
            verdict
                .must(acts == most, format!("{acts} pauses and resumes are in the audit; {most} were made"));
            let finished = finished_while_paused(&stage, &windows).await?;
            verdict.figure("finished_while_paused", finished);
            verdict.must(finished > 0, "no job that ran when the queue was paused went on");
            verdict.none("claims_in_windows", &books::claims_while_paused(&stage.db, &windows).await?);
        }
    }
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// Pauses the queue, has PostgreSQL crash, and sees that the pause still stands; returns for how long it surely did.
async fn pause_through_a_crash(stage: &mut Stage, client: &Client) -> anyhow::Result<Window> {
    client.insist("mutation { pauseQueue(reason: \"crash\") { isPaused } }", &Value::Null).await?;
    let from = stage.now().await?;
    stage.postgres.crash().await?;
    stage.postgres.restart().await?;
    let state = client.insist("{ queueStatus { isPaused pauseReason } }", &Value::Null).await?;
    ensure!(state["queueStatus"]["isPaused"] == true, "the crash has ended the pause: {state}");
    let to = stage.now().await?;
    client.insist("mutation { resumeQueue { isPaused } }", &Value::Null).await?;
    Ok((from, to))
}

/// Jobs that were claimed before a pause and completed within it.
async fn finished_while_paused(stage: &Stage, windows: &[Window]) -> anyhow::Result<i64> {
    let (from, to): (Vec<_>, Vec<_>) = windows.iter().copied().unzip();
    let sql = "select count(*) from unnest($1::timestamptz[], $2::timestamptz[]) as p (since, until)
                 join attempt a on a.started_at < p.since and a.ended_at > p.since and a.ended_at < p.until
                where a.outcome = 'completed'";
    Ok(sqlx::query_scalar(sql).bind(from).bind(to).fetch_one(&stage.db).await?)
}

/// Kills a node at a time and starts another in its place.
async fn kill(
    stage: &Stage,
    nodes: &mut Vec<Node>,
    left: &mut Left,
    until: Instant,
    every: Duration,
) -> anyhow::Result<Vec<Killed>> {
    let mut rng = stage.plan.rng();
    let mut killed = Vec::new();
    let mut next = Instant::now() + every;
    while next < until {
        sleep_until(next).await;
        let victim = nodes.swap_remove(rng.random_range(0..nodes.len()));
        let id = stage.node_id(&victim).await?;
        left.note(victim.pid());
        let at = stage.now().await?;
        victim.kill().await?;
        killed.extend(id.map(|node| Killed { node, at }));
        // Half the time another takes its place at once, half the time the rest must do.
        if rng.random_bool(0.5) {
            sleep(every / 2).await;
        }
        nodes.push(stage.worker(&[]).await?);
        next += every.mul_f64(rng.random_range(0.8..1.2));
    }
    Ok(killed)
}
