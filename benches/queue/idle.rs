//! What a node costs that has nothing to do.

use std::time::Duration;

use crate::cpu::Meter;
use crate::report::{Report, figure, heading};
use crate::scale::Scale;
use crate::stage::{Node, Stage, registered};

/// Watches one idle node process: its transactions and its processor time, workers included.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("an idle node over {} s", scale.idle_seconds));
    let database = stage.database().await?;
    let node = Node::start(stage, &database, &[])?;
    registered(&database, 1).await?;
    // What a start costs is no idling.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (commits, meter) = (stage.transactions(&database).await?, Meter::of(node.pid())?);
    let time = Duration::from_secs(scale.idle_seconds);
    tokio::time::sleep(time).await;
    let commits = stage.transactions(&database).await? - commits;
    let used = meter.used()?.as_secs_f64();
    let seconds = time.as_secs_f64();
    figure("transactions a second", &format!("{:.1}", commits as f64 / seconds));
    figure("share of one core, workers included", &format!("{:.2} %", used / seconds * 100.0));
    report.goal_rate_below("transactions of an idle node", commits as f64 / seconds, 1.0);
    report.goal_share_below("an idle node, of a core", used / seconds, 0.005);
    node.stop()?;
    stage.drop(database).await
}
