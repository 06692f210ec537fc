//! R7: every node has another wall clock, and none of them is right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;

use super::books::{self, Killed};
use super::numbers::quantile;
use super::plan::Plan;
use super::procs::Left;
use super::stage::{self, Stage};
use super::verdict::Verdict;

const CONCURRENCY: usize = 8;
/// An hour ahead, an hour behind, and twice as fast.
const CLOCKS: [&str; 3] = ["+1h", "-1h", "+0 x2"];

/// R7.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let Some(library) = library().await? else {
        return Ok(Verdict::skipped(
            "libfaketime is missing, and apt-get cannot bring it: install Debian's package libfaketime"
                .into(),
        ));
    };
    let library = library.to_string_lossy().into_owned();
    let stage = Stage::begin(plan, "R7", &[]).await?;
    let (api, client) = stage.api().await?;
    let mut nodes = Vec::new();
    for clock in CLOCKS {
        // The monotonic clock is left alone: machines differ in what time they think it is, not in how long a second is.
        let shifted = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", clock),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
        ];
        nodes.push(stage.worker(&shifted).await?);
    }
    let definition = client.definition(plan.pick(200, 500)).await?;
    let delay = plan.pick(200, 500);
    let models: Vec<String> = (0..4).map(|i| format!("mock/echo?delayMs={}", delay + i)).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let run = client.start(&definition, &models, "R7").await?;
    // No job may be taken from anybody before somebody dies.
    sleep(Duration::from_millis(3 * plan.lease_ms())).await;
    let premature: Vec<String> = sqlx::query_scalar(
        "select format('job %s: claim %s was %s', job_id, number, outcome) from attempt where outcome <> 'completed'",
    )
    .fetch_all(&stage.db)
    .await?;
    // The one that is an hour ahead has the lease that would look best to itself.
    let mut left = Left::default();
    let victim = nodes.remove(0);
    let id = stage.node_id(&victim).await?;
    left.note(victim.pid());
    let at = stage.now().await?;
    let pid = victim.pid();
    victim.kill().await?;
    // The library's own, which it removes only when it is not killed.
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        match std::fs::remove_file(Path::new("/dev/shm").join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let killed: Vec<Killed> = id.map(|node| Killed { node, at }).into_iter().collect();
    client.until_ended(&run).await?;
    stage.quiet().await?;
    stage.stop(nodes.into_iter().chain([api]), &mut left).await?;

    let mut verdict = Verdict::default();
    let (jobs, executions) = books::executions(&stage.db).await?;
    verdict.figure("jobs", jobs);
    books::verify(&stage, &[run], &mut verdict).await?;
    verdict.none("premature", &premature);
    let extra = executions - jobs;
    verdict.figure("extra_exec", extra);
    let reclaims = books::reclaims_ms(&stage.db, &killed).await?;
    verdict.must(!reclaims.is_empty(), "the kill hit no job");
    books::explain(&stage.db, extra, &killed, CONCURRENCY, &mut verdict).await?;
    let p99 = quantile(&reclaims, 0.99);
    verdict.figure("p99_reclaim_ms", p99.round());
    // R1 says how quick it is; here no lease may be stuck.
    let most = (2 * plan.lease_ms()) as f64;
    verdict.timely(p99 <= most, format!("re-claim took {p99:.0} ms; two leases are {most:.0} ms"));
    verdict.none("orphans", &left.running());
    stage.end().await?;
    Ok(verdict)
}

/// The library that shifts clocks: the machine's, or one from its package, which is unpacked for us only.
async fn library() -> anyhow::Result<Option<PathBuf>> {
    if let Some(found) = find(Path::new("/")) {
        return Ok(Some(found));
    }
    let dir = stage::root().join("faketime");
    stage::make(&dir)?;
    let script = "apt-get -q download libfaketime && dpkg-deb -x libfaketime_*.deb .";
    match Command::new("/bin/sh").args(["-c", script]).current_dir(&dir).output().await {
        Ok(output) if output.status.success() => Ok(find(&dir)),
        // No such package manager, or no such package: the test says what is missing.
        Ok(_) | Err(_) => Ok(None),
    }
}

fn find(root: &Path) -> Option<PathBuf> {
    let library = |entry: std::fs::DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    let folders = std::fs::read_dir(root.join("usr/lib")).ok()?.flatten();
    folders.map(library).find(|path| path.exists())
}
