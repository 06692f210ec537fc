//! What runs are expected to take, from what others took.

use super::{Result, Store};
use crate::domain::rate_limit::Ceilings;

/// Who would run the probes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Probes that all nodes run at once.
    pub slots: i64,
    /// Runs of the same priority or a higher one of which something waits.
    pub other_runs: i64,
}

/// A limit that bears on some models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLimit {
    /// A provider, or `provider/name`.
    pub name: String,
    /// What it allows now: in flight no more than the provider has shown to bear.
    pub ceilings: Ceilings,
    /// Why nothing at all passes it until somebody has looked: `auth` or `quota_exhausted`.
    pub hold: Option<String>,
    /// Runs of which something waits that it bears on as well.
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
    /// The limits that bear on any of these models, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn limits_on(&self, models: &[String]) -> Result<Vec<SharedLimit>> {
        let rows = sqlx::query!(
            r#"select r.name, least(r.in_flight_max, floor(r.concurrency))::int as in_flight, r.requests_per_minute,
                      r.tokens_per_minute, r.hold_code,
                      (select count(distinct l.run_id) from lane l
                        where l.is_live and l.id >= (select m.live_from from live_mark m)
                          and l.kind = 'probe:scenario' and l.is_open and not l.is_paused
                          and l.pending > 0 and r.name in (l.model, provider_of(l.model))) as "other_runs!"
                 from rate_limit r
                where r.name in (select unnest(array[m, provider_of(m)]) from unnest($1::text[]) as m)
                order by r.name"#,
            models
        )
        .fetch_all(&self.pool)
        .await?;
        let limits = rows.into_iter().map(|r| SharedLimit {
            name: r.name,
            ceilings: Ceilings {
                in_flight: r.in_flight,
                requests_per_minute: r.requests_per_minute,
                tokens_per_minute: r.tokens_per_minute,
            },
            hold: r.hold_code,
            other_runs: r.other_runs,
        });
        Ok(limits.collect())
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
