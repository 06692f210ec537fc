//! How long people wait for a pause, a resume, a change of priority and a cancel, whatever the number of waiting jobs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::fill::{self, Fill};
use crate::reads::{self, PROGRESS, QUEUE};
use crate::report::{Report, figure, heading, ms, percentiles, quantile};
use crate::scale::Scale;
use crate::stage::{Client, Database, Stage, serve, stop};

const NAMES: [&str; 6] =
    ["pauseRun", "resumeRun", "setRunPriority", "pauseQueue", "resumeQueue", "cancelRun"];

/// The longest that a control may take, and a cancel.
const CONTROL_MAX: Duration = Duration::from_millis(20);
const CANCEL_MAX: Duration = Duration::from_millis(50);

/// Measures one of ten runs of a hundred lanes, the most models that a run may have unless somebody allows more. Beside it,
/// one run with all jobs in one lane, and one with them in ten times as many lanes.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let many = if scale.stored >= 1_000_000 { 100 } else { 10 };
    for (runs, lanes) in [(10, many), (1, 1), (1, 10 * many)] {
        heading(&format!(
            "controls of a run, {} waiting jobs in {runs} run(s) of {lanes} lane(s)",
            scale.stored
        ));
        let database = stage.database().await?;
        let (app, client) = serve(&database, false, &[]).await?;
        fill::scenarios(&client).await?;
        Fill { runs, lanes, jobs: scale.stored / runs / lanes, mixed: false }.store(&database).await?;
        let run = fill::runs(&database).await?.pop().context("a run")?;
        let bench = Controls { database: &database, client: &client, run: &run, scale };
        let times = bench.quiet(runs).await?;
        if runs > 1 {
            for (name, times) in NAMES.iter().zip(&times) {
                let limit = if *name == "cancelRun" { CANCEL_MAX } else { CONTROL_MAX };
                let what =
                    format!("{name} with {} waiting jobs in {} lanes, p95", scale.stored, runs * lanes);
                report.goal_within(6, &what, quantile(times, 0.95), limit);
            }
        }
        bench.busy().await?;
        stop(app).await;
        stage.drop(database).await?;
    }
    Ok(())
}

/// How long one request took, and the processor time of everything meanwhile.
struct Cost {
    time: Duration,
    used: Duration,
}

struct Controls<'a> {
    database: &'a Database,
    client: &'a Client,
    run: &'a str,
    scale: &'a Scale,
}

impl Controls<'_> {
    /// Nothing else goes on. Returns how long each of [`NAMES`] took.
    async fn quiet(&self, runs: i32) -> anyhow::Result<Vec<Vec<Duration>>> {
        let mut costs: [Vec<Cost>; 6] = Default::default();
        for i in 0..self.scale.controls {
            costs[0].push(self.run_change("pauseRun", "", "PAUSED").await?);
            costs[1].push(self.run_change("resumeRun", "", "RUNNING").await?);
            let priority = if i % 2 == 0 { ", priority: HIGH" } else { ", priority: LOW" };
            costs[2].push(self.run_change("setRunPriority", priority, "RUNNING").await?);
            costs[3].push(self.queue_change("pauseQueue", true).await?);
            costs[4].push(self.queue_change("resumeQueue", false).await?);
            if i % 5 == 0 {
                costs[5].push(self.run_change("cancelRun", ", mode: GRACEFUL", "CANCELLED").await?);
                self.nothing_waits(runs).await?;
                self.undo_cancel().await?;
            }
        }
        let times: Vec<Vec<Duration>> =
            costs.iter().map(|costs| costs.iter().map(|cost| cost.time).collect()).collect();
        for ((name, times), costs) in NAMES.iter().zip(&times).zip(&costs) {
            let used = costs.iter().map(|cost| cost.used).sum::<Duration>() / u32::try_from(costs.len())?;
            figure(name, &format!("{}; processor {} each", percentiles(times), ms(used)));
        }
        for (name, query, variables) in
            [("run { progress }", PROGRESS, json!({ "id": self.run })), ("queueStatus", QUEUE, Value::Null)]
        {
            let requests = self.scale.requests / 2;
            let reads = reads::latencies(self.client, query, &Arc::new(vec![variables]), requests, 1).await?;
            figure(&format!("{name}, 1 at a time"), &percentiles(&reads));
        }
        Ok(times)
    }

    /// While a node claims and completes as fast as it can.
    async fn busy(&self) -> anyhow::Result<()> {
        // With a higher priority it would have every slot, and soon end.
        self.run_change("setRunPriority", ", priority: NORMAL", "RUNNING").await?;
        let (enough, driver) = (CancellationToken::new(), Driver::register(self.database, 500).await?);
        let id = driver.node();
        let load = tokio::spawn(driver.run(Answer::Echo, Some(enough.clone())));
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..self.scale.controls {
            times[0].push(self.run_change("pauseRun", "", "PAUSED").await?.time);
            times[1].push(self.run_change("resumeRun", "", "RUNNING").await?.time);
            // The load gets going again before the next pause.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        self.run_change("pauseRun", "", "PAUSED").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        enough.cancel();
        let driven = load.await??.jobs;
        let late: i64 = sqlx::query_scalar(
            "select count(*) from run r join lane l on l.run_id = r.id join current_job j on j.lane_id = l.id
              where r.id = $1::uuid and j.claimed_at > r.paused_at",
        )
        .bind(self.run)
        .fetch_one(&self.database.db)
        .await?;
        ensure!(late == 0, "{late} jobs were claimed by {id} after the pause");
        fill::agree(self.database).await?;
        figure("pauseRun while a node claims batches of 500", &percentiles(&times[0]));
        figure("resumeRun while a node claims batches of 500", &percentiles(&times[1]));
        figure("jobs that the node completed meanwhile", &driven.to_string());
        let counted = self.database.number("select sum(completed) from lane").await?;
        ensure!(counted == i64::try_from(driven)?, "{driven} were completed, but {counted} are counted");
        Ok(())
    }

    /// A cancelled run's jobs are gone from every count, though their rows are as they were.
    async fn nothing_waits(&self, runs: i32) -> anyhow::Result<()> {
        let (_, data) = self.client.timed(PROGRESS, &json!({ "id": self.run })).await?;
        let progress = &data["run"]["progress"];
        ensure!(
            progress["pending"] == 0 && progress["active"] == 0 && progress["cancelled"] == progress["total"],
            "a cancelled run's jobs wait: {data}"
        );
        let (_, data) = self.client.timed(QUEUE, &Value::Null).await?;
        let kinds = data["queueStatus"]["jobs"].as_array().context("kinds")?;
        let others = self.scale.stored / runs * (runs - 1);
        ensure!(
            kinds.iter().all(|kind| kind["type"] != "probe:scenario" || kind["pending"] == others),
            "a cancelled run's jobs wait: {data}"
        );
        Ok(())
    }

    async fn run_change(&self, name: &str, more: &str, becomes: &str) -> anyhow::Result<Cost> {
        let query = format!("mutation($id: ID!) {{ {name}(id: $id{more}) {{ status }} }}");
        let (cost, data) = self.cost(&query, &json!({ "id": self.run })).await?;
        ensure!(data[name]["status"] == becomes, "{name} took {}, but {data}", ms(cost.time));
        Ok(cost)
    }

    async fn queue_change(&self, name: &str, pauses: bool) -> anyhow::Result<Cost> {
        let query = format!("mutation {{ {name} {{ isPaused }} }}");
        let (cost, data) = self.cost(&query, &Value::Null).await?;
        ensure!(data[name]["isPaused"] == pauses, "{data}");
        Ok(cost)
    }

    async fn cost(&self, query: &str, variables: &Value) -> anyhow::Result<(Cost, Value)> {
        let meter = Meter::ours()?;
        let (time, data) = self.client.timed(query, variables).await?;
        Ok((Cost { time, used: meter.used()? }, data))
    }

    /// No node tidies up here, so a cancelled run's rows are as they were.
    async fn undo_cancel(&self) -> anyhow::Result<()> {
        sqlx::raw_sql(
            "delete from job j using lane l where l.id = j.lane_id and l.kind <> 'probe:scenario';
             delete from lane where kind <> 'probe:scenario';
             update lane set pending = cancelled, cancelled = 0, is_live = true, is_open = true, closed_at = null,
                             is_settled = true
              where not is_open;
             update run set status = 'RUNNING', completed_at = null, cancel_mode = null where status = 'CANCELLED'",
        )
        .execute(&self.database.db)
        .await?;
        Ok(())
    }
}
