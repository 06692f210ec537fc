//! Awa, with the settings of its own benchmark of offered load: 1,024 slots, no deadlines, jobs inserted by COPY.
//!
//! The bench sets `AWA_COMPLETION_BATCH_SIZE=512`, which nothing but the environment can.

use std::ops::Range;
use std::time::Duration;

use awa::model::insert::params_with;
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
};
use awa_sqlx::PgPool;
use awa_sqlx::postgres::PgPoolOptions;
use runlane_bench_peers::{Peer, Phase, ran, run};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, JobArgs)]
struct Bench {
    id: u64,
}

struct Awa {
    pool: PgPool,
    storage: QueueStorage,
    client: Client,
}

fn params(id: u64) -> anyhow::Result<InsertParams> {
    Ok(params_with(&Bench { id }, InsertOpts { queue: "bench".into(), ..InsertOpts::default() })?)
}

fn client(pool: &PgPool) -> anyhow::Result<Client> {
    let queue =
        QueueConfig { max_workers: 1_024, deadline_duration: Duration::ZERO, ..QueueConfig::default() };
    let handle = |job: Bench, _: &awa::JobContext| async move {
        ran(job.id);
        Ok(JobResult::Completed)
    };
    Ok(Client::builder(pool.clone()).queue("bench", queue).register::<Bench, _, _>(handle).build()?)
}

impl Peer for Awa {
    async fn prepare(phase: Phase, url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(24).connect(url).await?;
        awa::migrations::run(&pool).await?;
        if phase == Phase::Insert {
            // The first worker of a new database turns the storage of 0.6 on.
            let first = client(&pool)?;
            first.start().await?;
            first.shutdown(Duration::from_secs(5)).await;
        }
        let client = client(&pool)?;
        Ok(Self { pool, storage: QueueStorage::new(QueueStorageConfig::default())?, client })
    }

    async fn insert(&self, ids: Range<u64>) -> anyhow::Result<()> {
        let jobs: Vec<_> = ids.map(params).collect::<anyhow::Result<_>>()?;
        for jobs in jobs.chunks(10_000) {
            self.storage.enqueue_params_copy(&self.pool, jobs).await?;
        }
        Ok(())
    }

    async fn work(&self) -> anyhow::Result<()> {
        Ok(self.client.start().await?)
    }

    async fn send(&self, id: u64) -> anyhow::Result<()> {
        self.storage.enqueue_params_batch(&self.pool, &[params(id)?]).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run::<Awa>().await
}
