//! What the node itself costs per job.

use std::ffi::OsString;

use futures_util::StreamExt;
use runlane::executor::{Executor, Settings, Stop};
use serde_json::json;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_jobs_pass_two_warm_workers_quickly() {
    const JOBS: i64 = 20_000;
    let mut settings = Settings { warm_workers: 2, ..settings("serve") };
    settings.worker_command.truncate(3);
    settings.worker_command.push(script("fast.py"));
    settings.serve_arguments = Vec::<OsString>::new();
    let executor = Executor::new(settings);
    let act = json!({ "scenario": { "key": "k", "preamble": null, "prompt": "p", "followups": [], "dimensions": {} } });
    let jobs: Vec<_> = (0..JOBS).map(|n| job(n, &act)).collect();
    let start = std::time::Instant::now();
    let done = futures_util::stream::iter(jobs)
        .map(|job| executor.run(job, Stop::never()))
        .buffer_unordered(512)
        .filter(|finished| std::future::ready(completed(finished)))
        .count();
    assert_eq!(bounded(done).await, JOBS as usize);
    let rate = JOBS as f64 / start.elapsed().as_secs_f64();
    println!("executor: {rate:.0} no-op jobs/s through 2 warm processes, 512 at once");
    finish(&executor, []).await;
}
