//! How long the questions that people ask all the time take, over HTTP, authenticated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::cpu::Meter;
use crate::fill::{self, Fill};
use crate::report::{Report, figure, heading, ms, percentiles, quantile};
use crate::scale::Scale;
use crate::stage::{Client, Stage, serve, stop};

/// A run's progress.
pub const PROGRESS: &str = "query($id: ID!) { run(id: $id) { status progress {
    total pending active completed failed cancelled percentComplete } } }";
/// The same with all that the console shows of it.
const PROGRESS_WIDE: &str = "query($id: ID!) { run(id: $id) { status estimatedTimeRemaining progress {
    total pending active completed failed cancelled percentComplete
    byModel { modelId total pending active completed failed cancelled } } recentTasks(limit: 10) { jobId } } }";
/// The whole queue.
pub const QUEUE: &str = "{ queueStatus { isPaused totalPending totalActive totalCompleted totalFailed
    jobs { type pending active completed failed } } }";

/// The first page of the runs.
const RUNS: &str =
    "{ runs(first: 20) { totalCount nodes { id status createdAt progress { total completed } } } }";
/// The first page of a run's failed jobs.
const FAILED: &str = "query($id: ID!) { run(id: $id) { jobs(first: 50, filter: { status: [FAILED] }) {
    totalCount nodes { id status modelId error { code message } } } } }";
/// The first page of a run's completed jobs.
const COMPLETED: &str = "query($id: ID!) { run(id: $id) { jobs(first: 50, filter: { status: [COMPLETED] }) {
    totalCount nodes { id status modelId } } } }";

/// Measures them with many jobs in the database, one request at a time and eight.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("reads with {} jobs that have ended and {} that wait", 10 * scale.read, scale.read));
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    let jobs = if scale.is_short() { 200 } else { 1_000 };
    let fill = Fill { runs: 11 * scale.read / jobs / 10, lanes: 10, jobs, mixed: true };
    let begun = Instant::now();
    fill.store(&database).await?;
    figure("filled, checked and vacuumed in", &format!("{:.0} s", begun.elapsed().as_secs_f64()));
    let bytes = database.number("select pg_database_size(current_database())").await?;
    figure("size of the database", &format!("{} MiB", bytes >> 20));
    let runs: Vec<Value> = fill::runs(&database).await?.into_iter().map(|id| json!({ "id": id })).collect();

    let total: i64 = i64::from(fill.lanes * fill.jobs);
    for run in &runs {
        let (_, data) = client.timed(PROGRESS, run).await?;
        ensure!(data["run"]["progress"]["total"] == total, "{data}");
    }
    let (_, status) = client.timed(QUEUE, &Value::Null).await?;
    ensure!(status["queueStatus"]["totalPending"] == scale.read, "{} wait, but {status}", scale.read);

    for (what, query, variables, has_goal) in [
        ("run { progress }", PROGRESS, runs.clone(), true),
        ("run { progress byModel estimatedTimeRemaining recentTasks }", PROGRESS_WIDE, runs.clone(), false),
        ("queueStatus", QUEUE, vec![Value::Null], true),
        ("the first page of runs", RUNS, vec![Value::Null], true),
        ("the first page of failed jobs", FAILED, runs.clone(), true),
        ("the first page of completed jobs", COMPLETED, runs, true),
    ] {
        let variables = Arc::new(variables);
        for at_once in [1, 8] {
            let meter = Meter::ours()?;
            let times = latencies(&client, query, &variables, scale.requests, at_once).await?;
            let used = meter.used()? / u32::try_from(times.len())?;
            let what = format!("{what}, {at_once} at a time");
            figure(&what, &format!("{}; processor {} each", percentiles(&times), ms(used)));
            if has_goal {
                report.goal_within(
                    5,
                    &format!("p99 of {what}"),
                    quantile(&times, 0.99),
                    Duration::from_millis(10),
                );
            }
        }
    }
    stop(app).await;
    stage.drop(database).await
}

/// Sends so many requests, so many at a time, going through the variables in turn.
pub async fn latencies(
    client: &Client,
    query: &'static str,
    variables: &Arc<Vec<Value>>,
    requests: usize,
    at_once: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..at_once {
        let (client, variables) = (client.clone(), Arc::clone(variables));
        tasks.spawn(async move {
            let mut times = Vec::new();
            // The first request of each opens its connection.
            client.timed(query, &variables[task % variables.len()]).await?;
            for i in 0..requests.div_ceil(at_once) {
                times.push(client.timed(query, &variables[(i * at_once + task) % variables.len()]).await?.0);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}
