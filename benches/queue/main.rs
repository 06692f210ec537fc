//! What the speed claims rest on: the real server, a real and durable PostgreSQL, real Python workers.
//!
//! `make bench` prints every figure and, at the end, what is held against the goals of docs/performance.md.
//! `BENCH_SCALE=short` does the same with small numbers in about a minute, so that the benches stay whole; its figures
//! mean nothing. `BENCH_SCALE=full` reads among eleven million jobs; `BENCH_STEADY_MINUTES=60` keeps a steady load up for
//! an hour. `BENCH_ONLY=start,reads` runs some phases only. `DATABASE_URL` names another server than the embedded one; its
//! user must be able to make databases.
//!
//! Every phase checks what it has measured: a number that comes with a wrong count is an error.

mod archive;
mod build;
mod control;
mod cost;
mod cpu;
mod crowd;
mod driver;
mod fill;
mod floor;
mod idle;
mod limits;
mod node;
mod peers;
mod pick_up;
mod polls;
mod process;
mod python;
mod reads;
mod report;
mod scale;
mod stage;
mod start;
mod statements;
mod steady;
mod throughput;

use report::Report;
use scale::Scale;
use stage::Stage;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scale = Scale::from_env()?;
    let stage = Stage::begin().await?;
    let mut report = Report::default();
    let measured = measure(&stage, &scale, &mut report).await;
    report.print_goals();
    stage.end().await?;
    measured
}

async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    stage.print_facts(scale).await?;
    if scale.wants("start") {
        start::measure(stage, scale, report).await?;
    }
    if scale.wants("reads") {
        reads::measure(stage, scale, report).await?;
    }
    if scale.wants("polls") {
        polls::measure(stage, scale, report).await?;
    }
    if scale.wants("control") {
        control::measure(stage, scale, report).await?;
    }
    if scale.wants("crowd") {
        crowd::measure(stage, scale, report).await?;
    }
    if scale.wants("throughput") {
        throughput::measure(stage, scale, report).await?;
    }
    if scale.wants("cost") {
        cost::measure(stage, scale).await?;
    }
    if scale.wants("steady") {
        steady::measure(stage, scale, report).await?;
    }
    if scale.wants("peers") {
        peers::measure(stage, scale, report).await?;
    }
    if scale.wants("archive") {
        archive::measure(stage, scale, report).await?;
    }
    if scale.wants("python") {
        python::measure(stage, scale, report).await?;
    }
    if scale.wants("pick-up") {
        pick_up::measure(stage, scale, report).await?;
    }
    if scale.wants("limits") {
        limits::measure(stage, scale, report).await?;
    }
    if scale.wants("node") {
        node::measure(stage, scale, report).await?;
    }
    if scale.wants("idle") {
        idle::measure(stage, scale, report).await?;
    }
    if scale.wants("build") {
        build::measure(stage, scale)?;
    }
    Ok(())
}
