//! Many jobs in the database within seconds, in states that the queue could have brought about.

use anyhow::{Context, ensure};

use crate::stage::{Client, Database};

/// What is filled in.
pub struct Fill {
    /// Runs.
    pub runs: i32,
    /// Lanes of each.
    pub lanes: i32,
    /// Jobs of each lane.
    pub jobs: i32,
    /// Of eleven runs nine have ended and two are half done, so ten jobs have ended for each that waits; otherwise all
    /// wait.
    pub mixed: bool,
}

impl Fill {
    /// As many jobs in as many lanes, all waiting, ten lanes a run.
    pub fn waiting(jobs: i32, lanes: i32) -> Self {
        let per_run = if lanes >= 10 { 10 } else { lanes };
        Self { runs: lanes / per_run, lanes: per_run, jobs: jobs / lanes, mixed: false }
    }

    /// Jobs in all.
    pub const fn total(&self) -> i32 {
        self.runs * self.lanes * self.jobs
    }

    /// Fills a fresh database and checks that counters and rows agree.
    pub async fn store(&self, database: &Database) -> anyhow::Result<()> {
        let mut connection = database.db.acquire().await?;
        sqlx::query(
            "select set_config('bench.runs', $1, false), set_config('bench.lanes', $2, false),
                            set_config('bench.jobs', $3, false), set_config('bench.mixed', $4, false)",
        )
        .bind(self.runs.to_string())
        .bind(self.lanes.to_string())
        .bind(self.jobs.to_string())
        .bind(self.mixed.to_string())
        .execute(&mut *connection)
        .await?;
        sqlx::raw_sql(include_str!("fill.sql")).execute(&mut *connection).await?;
        drop(connection);
        // First, so that what follows need not write it.
        database.settle().await?;
        let jobs = database.number("select sum(total) from lane").await?;
        ensure!(jobs == i64::from(self.total()), "{jobs} jobs instead of {}", self.total());
        agree(database).await
    }
}

/// Fails unless every lane's counters say what its rows say, and so do the tables that find jobs by their state.
pub async fn agree(database: &Database) -> anyhow::Result<()> {
    let lanes = "select count(*)
      from lane l
      left join (
        select j.lane_id, count(*) filter (where j.state = 'pending') as pending,
               count(*) filter (where j.state = 'active') as active,
               count(*) filter (where j.state = 'completed') as completed,
               count(*) filter (where j.state = 'failed') as failed,
               count(*) filter (where j.state = 'cancelled') as cancelled
          from job j group by j.lane_id
      ) as n on n.lane_id = l.id
      left join (select w.lane_id, count(*) as n from waiting_job w group by w.lane_id) as w on w.lane_id = l.id
      left join (select e.lane_id, count(*) as n from ended_job e group by e.lane_id) as e on e.lane_id = l.id
     where (l.pending, l.active, l.completed, l.failed, l.cancelled)
           is distinct from (coalesce(n.pending, 0), coalesce(n.active, 0), coalesce(n.completed, 0),
                             coalesce(n.failed, 0), coalesce(n.cancelled, 0))
        or l.pending <> l.fresh + coalesce(w.n, 0) or l.failed + l.cancelled <> coalesce(e.n, 0)";
    let wrong = database.number(lanes).await?;
    ensure!(wrong == 0, "{wrong} lanes count wrongly");
    Ok(())
}

/// The ids of all runs.
pub async fn runs(database: &Database) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar("select id::text from run order by seq").fetch_all(&database.db).await?)
}

/// The only run.
pub async fn only_run(database: &Database) -> anyhow::Result<String> {
    runs(database).await?.pop().context("a run")
}

/// The thousand scenarios that filled jobs refer to.
pub async fn scenarios(client: &Client) -> anyhow::Result<()> {
    client.definition("a thousand", &[100, 10]).await.map(drop)
}
