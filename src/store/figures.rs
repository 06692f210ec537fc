//! Figures that are kept for a time, or computed anew from time to time.

use super::{Result, Store};

/// Days for which it is known what was spent on them.
const SPEND_DAYS: i32 = 400;
/// A model's statistic is drawn from the latest runs of any model, …
const RUNS: i32 = 300;
/// … from so many of the model's lanes among them, …
const LANES: i32 = 10;
/// … and from so many probes of each.
const JOBS: i32 = 50;

impl Store {
    /// Brings the statistics of models up to date, forgets tallies and spending that no reader needs any more, and notes
    /// where the live lanes begin.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn refresh_figures(&self) -> Result<()> {
        sqlx::query!(
            "with tallies as (
                delete from queue_minute where minute < clock_timestamp() - interval '25 hours'
             ), spending as (
                delete from spend_day where day < (clock_timestamp() at time zone 'UTC')::date - $4::int
             )
             select refresh_model_statistics($1, $2, $3), raise_live_mark()",
            RUNS,
            LANES,
            JOBS,
            SPEND_DAYS
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }
}
