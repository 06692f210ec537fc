//! What runs are expected to take, from what others took.

use super::{Result, Store};
use crate::domain::forecast::ModelStatistic;

/// A model's statistic is drawn from the latest runs of any model, …
const RUNS: i32 = 300;
/// … from so many of the model's lanes among them, …
const LANES: i32 = 10;
/// … and from so many probes of each.
const JOBS: i32 = 50;

/// Who would run the probes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Probes that all nodes run at once.
    pub slots: i64,
    /// Runs of the same priority or a higher one of which something waits.
    pub other_runs: i64,
}

/// What was foretold of a run that has finished, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PastRun {
    /// Its duration ÷ what was foretold.
    pub duration_ratio: Option<f64>,
    /// Its cost ÷ what was foretold.
    pub cost_ratio: Option<f64>,
}

impl Store {
    /// Brings the statistics of models up to date.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn refresh_model_statistics(&self) -> Result<()> {
        sqlx::query!("select refresh_model_statistics($1, $2, $3)", RUNS, LANES, JOBS)
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// What is known of those of these models that have run, in no order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn model_statistics(&self, models: &[String]) -> Result<Vec<ModelStatistic>> {
        let rows = sqlx::query!(
            "select model, jobs, mean_ms, quantiles_ms, output_tokens from model_statistic where model = any ($1)",
            models
        )
        .fetch_all(&self.pool)
        .await?;
        let statistics = rows.into_iter().map(|r| ModelStatistic {
            model: r.model,
            jobs: r.jobs.into(),
            mean_ms: r.mean_ms,
            quantiles_ms: r.quantiles_ms,
            output_tokens: r.output_tokens,
        });
        Ok(statistics.collect())
    }

    /// Who would run the probes of a run of this priority now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn probe_capacity(&self, priority: i16) -> Result<Capacity> {
        let row = sqlx::query!(
            r#"select slots as "slots!", other_runs as "other_runs!" from probe_capacity($1)"#,
            priority
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Capacity { slots: row.slots, other_runs: row.other_runs })
    }

    /// How far off the forecasts of the latest `limit` completed runs were, as far as they were never resumed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn past_runs(&self, limit: i64) -> Result<Vec<PastRun>> {
        let rows = sqlx::query!(
            r#"select (extract(epoch from r.completed_at - r.started_at) * 1000 / nullif(r.expected_ms, 0))::float8
                          as duration_ratio,
                      ((select sum(l.cost_usd) from lane l where l.run_id = r.id) / nullif(r.expected_usd, 0))::float8
                          as cost_ratio
                 from (select * from run where status = 'COMPLETED' and deleted_at is null order by seq desc limit $1) as r
                where r.started_at is not null and r.resumed_at is null"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let past =
            rows.into_iter().map(|r| PastRun { duration_ratio: r.duration_ratio, cost_ratio: r.cost_ratio });
        Ok(past.collect())
    }
}
