//! What a phase of a queue costs: time, processor, log, transactions.

use std::time::Duration;

use crate::cpu::Meter;
use crate::report::rate;
use crate::stage::Database;

/// What was there when a phase began.
pub struct Gauge {
    client: Meter,
    server: Meter,
    logged: i64,
}

/// What a phase took.
pub struct Took {
    jobs: u64,
    time: Duration,
    client: Duration,
    server: Duration,
    /// Of PostgreSQL's log; none where it is another server's.
    pub wal_bytes: Option<i64>,
    /// None where the sessions have not told, or are another server's.
    pub transactions: Option<i64>,
}

impl Gauge {
    /// Begins, with the server whose first process this is.
    pub async fn begin(database: &Database, client: Meter, server: u32) -> anyhow::Result<Self> {
        Ok(Self { client, server: Meter::of(server)?, logged: database.number(LOGGED).await? })
    }

    /// Ends a phase of so many jobs that took so long.
    pub async fn end(self, database: &Database, jobs: u64, time: Duration) -> anyhow::Result<Took> {
        let (client, server) = (self.client.used()?, self.server.used()?);
        let wal_bytes = Some(database.number(LOGGED).await? - self.logged);
        Ok(Took { jobs, time, client, server, wal_bytes, transactions: None })
    }
}

const LOGGED: &str = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";

impl Took {
    /// Jobs a second.
    pub fn rate(&self) -> f64 {
        rate(self.jobs as f64, self.time)
    }

    /// Microseconds of the client's processor time a job.
    pub fn client_us(&self) -> f64 {
        self.client.as_secs_f64() * 1e6 / self.jobs as f64
    }

    /// Microseconds of the server's processor time a job.
    pub fn server_us(&self) -> f64 {
        self.server.as_secs_f64() * 1e6 / self.jobs as f64
    }

    /// Bytes of PostgreSQL's log a job.
    pub fn wal_each(&self) -> Option<f64> {
        self.wal_bytes.map(|n| n as f64 / self.jobs as f64)
    }

    /// Transactions per 1,000 jobs.
    pub fn per_thousand(&self) -> Option<f64> {
        self.transactions.map(|n| n as f64 * 1_000.0 / self.jobs as f64)
    }
}
