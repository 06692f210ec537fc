//! What a node costs that has nothing to do.

use std::time::Duration;

use anyhow::Context;

use crate::report::{Report, figure, heading};
use crate::scale::Scale;
use crate::stage::{Node, Stage, registered};

/// The kernel's unit of processor time in `/proc`, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Watches one idle node process: its transactions and its processor time, workers included.
pub async fn measure(stage: &Stage, scale: &Scale, _report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("an idle node over {} s", scale.idle_seconds));
    let database = stage.database().await?;
    let node = Node::start(stage, &database, &[])?;
    registered(&database, 1).await?;
    // What a start costs is no idling.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (commits, ticks) = (stage.transactions(&database).await?, ticks(node.pid())?);
    let time = Duration::from_secs(scale.idle_seconds);
    tokio::time::sleep(time).await;
    let commits = stage.transactions(&database).await? - commits;
    let ticks = self::ticks(node.pid())? - ticks;
    let seconds = time.as_secs_f64();
    figure("transactions a second", &format!("{:.1}", commits as f64 / seconds));
    let share = ticks as f64 / TICKS_PER_SECOND / seconds;
    figure("share of one core, workers included", &format!("{:.2} %", share * 100.0));
    node.stop()?;
    stage.drop(database).await
}

/// Processor time of a process and of all that it has started, in ticks.
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    let mut waiting = vec![pid];
    while let Some(pid) = waiting.pop() {
        // Its name, in parentheses, may hold anything; the numbers follow it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
        for place in [11, 12] {
            sum += fields.get(place).context("user and system time")?.parse::<u64>()?;
        }
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                waiting.push(child.parse()?);
            }
        }
    }
    Ok(sum)
}
