//! What a node costs that has nothing to do.

use std::time::Duration;

use crate::cpu::Meter;
use crate::process::Node;
use crate::report::{Report, figure, heading};
use crate::scale::Scale;
use crate::stage::{Stage, registered};
use crate::statements::{Log, by_frequency};

/// Watches one idle node process: its statements and its processor time, workers included.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("an idle node over {} s", scale.idle_seconds));
    let database = stage.database().await?;
    let mut log = Log::of(stage, &database).await?;
    let node = Node::start(stage, &database, &[])?;
    registered(&database, 1).await?;
    // What a start costs is no idling.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commits = stage.transactions(&database).await?;
    if let Some(log) = &mut log {
        log.restart()?;
    }
    let meter = Meter::of(node.pid())?;
    let time = Duration::from_secs(scale.idle_seconds);
    tokio::time::sleep(time).await;
    let used = meter.used()?.as_secs_f64();
    let seconds = time.as_secs_f64();
    let commits = stage.transactions(&database).await? - commits;
    figure("transactions a second", &format!("{:.1}", commits as f64 / seconds));
    figure("share of one core, workers included", &format!("{:.2} %", used / seconds * 100.0));
    match log {
        None => figure("statements a second", "unknown: this PostgreSQL's log cannot be read"),
        Some(log) => {
            let counts = log.counts()?;
            let sent: usize = counts.values().sum();
            for (statement, n) in by_frequency(&counts) {
                figure(&format!("{:.3}/s", n as f64 / seconds), statement);
            }
            report.goal_rate_within(8, "statements of an idle node", sent as f64 / seconds, 1.0);
        }
    }
    report.goal_share_within(8, "an idle node, of a core", used / seconds, 0.005);
    node.stop()?;
    stage.drop(database).await
}
