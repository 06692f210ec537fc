//! graphile_worker, with the settings of its own benchmark: a local queue, completions in batches of 5 ms.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, Worker, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use runlane_bench_peers::{Job, Peer, Phase, ran, run};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

#[derive(Serialize, Deserialize)]
struct Task(Job);

impl TaskHandler for Task {
    const IDENTIFIER: &'static str = "bench";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        ran(self.0.id);
        Ok::<(), String>(())
    }
}

struct GraphileWorker {
    worker: Arc<Worker>,
    utils: WorkerUtils,
}

impl Peer for GraphileWorker {
    async fn prepare(phase: Phase, url: &str) -> anyhow::Result<Self> {
        // Polling finds what no notification announced; for one job at a time it would only burn time.
        let poll = if phase == Phase::PickUp { 1_000 } else { 5 };
        let worker = WorkerOptions::default()
            .pg_pool(PgPoolOptions::new().max_connections(44).connect(url).await?)
            .schema("graphile_worker")
            .concurrency(500)
            .local_queue(LocalQueueConfig::default().with_size(5_000))
            .complete_job_batch_delay(Duration::from_millis(5))
            .poll_interval(Duration::from_millis(poll))
            .listen_os_shutdown_signals(false)
            .define_job::<Task>()
            .init()
            .await?;
        let utils = worker.create_utils();
        Ok(Self { worker: Arc::new(worker), utils })
    }

    async fn insert(&self, ids: Range<u64>) -> anyhow::Result<()> {
        let jobs: Vec<_> = ids
            .map(|id| {
                let payload = serde_json::to_value(Job { id })?;
                Ok(RawJobSpec { identifier: "bench".into(), payload, spec: JobSpec::default() })
            })
            .collect::<serde_json::Result<_>>()?;
        for jobs in jobs.chunks(10_000) {
            self.utils.add_raw_jobs(jobs).await?;
        }
        Ok(())
    }

    async fn work(&self) -> anyhow::Result<()> {
        let worker = Arc::clone(&self.worker);
        tokio::spawn(async move { worker.run().await.expect("the worker runs") });
        Ok(())
    }

    async fn send(&self, id: u64) -> anyhow::Result<()> {
        self.utils.add_job(Task(Job { id }), JobSpec::default()).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run::<GraphileWorker>().await
}
