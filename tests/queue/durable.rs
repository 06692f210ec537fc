//! Others get at the lanes of a claim before it is on disk; its node hears of it afterwards.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::domain::JobKind;
use runlane::embedded::Cluster;
use sqlx::PgPool;

use crate::support::direct::Direct;
use crate::support::postgres::{scratch, throw_away_in};

#[tokio::test]
async fn a_claim_of_few_that_was_answered_survives_a_crash_of_the_database() {
    survives(2).await;
}

#[tokio::test]
async fn a_claim_of_many_that_was_answered_survives_a_crash_of_the_database() {
    survives(40).await;
}

/// Crashes the database after the answer to a claim of so many jobs.
async fn survives(jobs: u32) {
    let mode = std::fs::Permissions::from_mode(0o711);
    let home = tempfile::Builder::new().prefix("runlane").permissions(mode).tempdir_in(scratch()).unwrap();
    let mut settings = throw_away_in(home.path().join("data"));
    // Only those who wait for it write the log: nobody does in passing what the claim should have waited for.
    settings.options.push(("wal_writer_delay".into(), "10s".into()));
    let cluster = Cluster::start(&settings).await.unwrap();
    let migrating = PgPool::connect(cluster.url()).await.unwrap();
    runlane::store::migrate(&migrating).await.unwrap();
    migrating.close().await;
    let direct = Direct::on(cluster.url()).await;
    let definition = direct.definition(jobs as usize).await;
    direct.start(definition, &["mock/echo"], None).await;
    let node = direct.node().await;

    let claimed = direct.claim(node, JobKind::ProbeScenario, jobs).await;
    // All of its processes end at once, and what they had not written is gone.
    kill(Pid::from_raw(cluster.pid().cast_signed()), Signal::SIGQUIT).unwrap();
    // Whether it finds anything left to stop is of no matter.
    cluster.stop().await.ok();

    let cluster = Cluster::start(&settings).await.unwrap();
    let db = PgPool::connect(cluster.url()).await.unwrap();
    let kept: Vec<i64> =
        sqlx::query_scalar("select unnest(jobs) from claim order by 1").fetch_all(&db).await.unwrap();
    assert_eq!(claimed.len(), jobs as usize);
    assert_eq!(kept, claimed.iter().map(|c| c.job_id).collect::<Vec<_>>());
    db.close().await;
    cluster.stop().await.unwrap();
}
