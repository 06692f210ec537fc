//! apalis on PostgreSQL: two workers, batches of 500, and no lock for each job; notifications for single jobs.

use std::ops::Range;
use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use runlane_bench_peers::{Job, Peer, Phase, ran, run};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

async fn handle(job: Job) -> Result<(), BoxDynError> {
    ran(job.id);
    Ok(())
}

struct Apalis {
    phase: Phase,
    pool: PgPool,
}

impl Apalis {
    fn storage(&self) -> PostgresStorage<Job> {
        let config = Config::default().queue("bench").batch_size(500).lock_tasks(false);
        PostgresStorage::new(&self.pool).with_config(config)
    }
}

impl Peer for Apalis {
    async fn prepare(phase: Phase, url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(16).connect(url).await?;
        PostgresStorage::setup(&pool).await?;
        if phase == Phase::Process {
            // Jobs become due at whole seconds.
            let due = "select coalesce(extract(epoch from max(run_at) - now()), 0)::float8 from apalis.jobs";
            let seconds: f64 = sqlx::query_scalar(due).fetch_one(&pool).await?;
            tokio::time::sleep(Duration::from_secs_f64(seconds.max(0.0))).await;
        }
        Ok(Self { phase, pool })
    }

    async fn insert(&self, ids: Range<u64>) -> anyhow::Result<()> {
        let jobs: Vec<_> = ids.map(|id| Job { id }).collect();
        let mut storage = self.storage();
        for jobs in jobs.chunks(1_000) {
            storage.push_bulk(jobs.to_vec()).await?;
        }
        Ok(())
    }

    async fn work(&self) -> anyhow::Result<()> {
        if self.phase == Phase::PickUp {
            let worker = WorkerBuilder::new("one").backend(self.storage().with_pubsub()).build(handle);
            tokio::spawn(async move { worker.run().await.expect("the worker runs") });
            return Ok(());
        }
        for name in ["one", "two"] {
            let backend = self.storage().poll_with_interval(Duration::from_millis(20));
            let worker = WorkerBuilder::new(name).backend(backend).build(handle);
            tokio::spawn(async move { worker.run().await.expect("the worker runs") });
        }
        Ok(())
    }

    async fn send(&self, id: u64) -> anyhow::Result<()> {
        Ok(self.storage().push(Job { id }).await?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run::<Apalis>().await
}
