//! R13: the disk under PostgreSQL is full, and then it is not.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::books;
use super::client::START;
use super::plan::Plan;
use super::postgres::Postgres;
use super::procs::Left;
use super::stage::{self, Stage};
use super::verdict::Verdict;

const DISK_MB: u32 = 256;
const PATIENCE: Duration = Duration::from_secs(300);

/// A small disk of its own, in memory.
struct Disk(PathBuf);

impl Disk {
    /// None when this machine lets us make no file system.
    async fn mount(at: PathBuf) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(&at)?;
        let size = format!("size={DISK_MB}m,mode=0711");
        let made =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output().await?;
        Ok(made.status.success().then_some(Self(at)))
    }

    /// Leaves no room; returns the file that takes it all.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = File::create(&path)?;
        let mut chunk = vec![0_u8; 1 << 20];
        while !chunk.is_empty() {
            match file.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    chunk.truncate(chunk.len() / 2)
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(path)
    }

    async fn unmount(self) -> anyhow::Result<()> {
        let done = Command::new("umount").arg(&self.0).output().await?;
        ensure!(done.status.success(), "cannot unmount {}", self.0.display());
        Ok(())
    }
}

/// R13.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let rounds = plan.pick(2, 20);
    let dir = stage::root().join("R13");
    stage::make(&dir)?;
    let Some(disk) = Disk::mount(dir.join("disk")).await? else {
        return Ok(Verdict::skipped(
            "no small file system can be made here: `mount -t tmpfs` needs root".into(),
        ));
    };
    let verdict = play(plan, rounds, &dir, &disk).await;
    disk.unmount().await?;
    std::fs::remove_dir_all(&dir)?;
    verdict
}

async fn play(plan: Plan, rounds: u32, dir: &Path, disk: &Disk) -> anyhow::Result<Verdict> {
    let data = disk.0.join("data");
    // The log of writes ahead keeps what it has: what is refused is data.
    let options = [("max_wal_size", "64MB"), ("min_wal_size", "64MB")];
    let postgres = Postgres::start(&data, &options).await?;
    let stage = Stage::on(plan, "R13", dir.join("stage"), postgres, &[]).await?;
    let (mut api, client) = stage.api().await?;
    let mut node = stage.worker(&[]).await?;
    let definition = client.definition(200).await?;
    let mut runs = Vec::new();
    let mut refused = 0;
    let mut unclean = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        runs.push(client.start(&definition, &["mock/echo?delayMs=100"], &format!("before-{round}")).await?);
        let ballast = disk.fill()?;
        // Until it is really felt.
        let deadline = Instant::now() + PATIENCE;
        let mut refusals = 0;
        for i in 0.. {
            let input = json!({ "definitionId": definition, "models": ["mock/echo"], "idempotencyKey": format!("full-{round}-{i}") });
            match client.post(START, &json!({ "input": input })).await {
                Ok(answer) if answer.is_data() => {
                    let id = answer.body["data"]["startRun"]["id"].as_str().unwrap_or_default();
                    runs.push(id.to_owned());
                }
                Ok(answer) => {
                    refusals += 1;
                    if answer.code() != "UNAVAILABLE" {
                        unclean.push(format!("{answer:?}"));
                    }
                }
                Err(error) => unclean.push(format!("{error:#}")),
            }
            if refusals >= 5 {
                break;
            }
            ensure!(Instant::now() < deadline, "the disk is full, and nobody was refused anything");
        }
        refused += refusals;
        sleep(Duration::from_millis(500)).await;
        std::fs::remove_file(ballast)?;
        let free = Instant::now();
        let probe = client.start(&definition, &["mock/echo"], &format!("after-{round}")).await?;
        slowest = slowest.max(free.elapsed());
        client.until_ended(&probe).await?;
        runs.push(probe);
    }
    stage.quiet().await?;
    let exited = usize::from(!api.is_running()?) + usize::from(!node.is_running()?);
    let mut left = Left::default();
    stage.stop([node, api], &mut left).await?;

    let mut verdict = Verdict::default();
    verdict.figure("jobs", books::executions(&stage.db).await?.0);
    verdict.figure("rounds", rounds);
    books::verify(&stage, &runs, &mut verdict).await?;
    verdict.figure("refused", refused);
    verdict.none("unclean", &unclean);
    verdict.figure("exited", exited);
    verdict.must(exited == 0, "a process did not survive");
    verdict.figure("recovery_max_ms", slowest.as_millis());
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}
