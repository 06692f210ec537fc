//! What has taken too long: the detector's steps, and what people see of it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::connections::Connections;
use super::{Error, Result, Store};
use crate::domain::JobKind;
use crate::domain::leader::Term;
use crate::domain::page::{Page, PageRequest};
use crate::domain::staleness::{
    Health, Place, StaleJob, StaleNote, StaleRun, StalenessFilter, Step, Threshold,
};

/// What one sweep looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Jobs that wait.
    Waiting,
    /// Jobs that run.
    Active {
        /// How often a job is taken back from a node within one epoch.
        requeues_max: i32,
        /// How long it then waits, in milliseconds.
        delay_ms: i64,
    },
    /// Runs.
    Runs,
}

/// A row of the detector's functions.
struct StepRow {
    run_id: uuid::Uuid,
    lane_id: Option<i64>,
    kind: Option<String>,
    stage: String,
    health: String,
    action: String,
    jobs: Option<Vec<i64>>,
}

impl Store {
    /// Puts the installation's thresholds in place of those that were in force, if they differ. Without a term only where
    /// none are in force yet.
    ///
    /// # Errors
    /// [`super::Error::Deposed`] when another node leads; the database's.
    pub async fn set_staleness_thresholds(&self, term: Option<Term>, thresholds: &[Threshold]) -> Result<()> {
        let stages: Vec<&str> = thresholds.iter().map(|t| t.stage.as_str()).collect();
        let kinds: Vec<Option<&str>> = thresholds.iter().map(|t| t.kind.map(JobKind::as_str)).collect();
        let millis: Vec<i64> = thresholds.iter().map(|t| t.threshold_ms).collect();
        let percents: Vec<i16> = thresholds.iter().map(|t| t.warn_percent).collect();
        let actions: Vec<&str> = thresholds.iter().map(|t| t.action.as_str()).collect();
        sqlx::query!(
            "select set_staleness_thresholds($1, $2::text[]::staleness_stage[], $3::text[]::job_kind[], $4, $5,
                                             $6::text[]::staleness_action[])",
            term.map(|t| t.epoch),
            &stages as &[&str],
            &kinds as &[Option<&str>],
            &millis,
            &percents,
            &actions as &[&str]
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }

    /// One bounded step of the detector; says what it did. Nothing: there was nothing left to do.
    ///
    /// # Errors
    /// [`super::Error::Deposed`] when another node leads; the database's.
    pub async fn sweep_stale(&self, term: Term, sweep: Sweep, batch: i32) -> Result<Vec<Step>> {
        // Each is one statement in autocommit: no lock is held while the network waits.
        let rows = match sweep {
            Sweep::Waiting => {
                sqlx::query_as!(
                    StepRow,
                    r#"select run_id as "run_id!", lane_id, kind::text, stage::text as "stage!",
                              health::text as "health!", action::text as "action!", jobs
                         from sweep_waiting_jobs($1, $2)"#,
                    term.epoch,
                    batch
                )
                .fetch_all(&self.pool)
                .await?
            }
            Sweep::Active { requeues_max, delay_ms } => {
                sqlx::query_as!(
                    StepRow,
                    r#"select run_id as "run_id!", lane_id, kind::text, stage::text as "stage!",
                              health::text as "health!", action::text as "action!", jobs
                         from sweep_active_jobs($1, $2, $3, $4)"#,
                    term.epoch,
                    batch,
                    requeues_max,
                    delay_ms
                )
                .fetch_all(&self.pool)
                .await?
            }
            Sweep::Runs => {
                sqlx::query_as!(
                    StepRow,
                    r#"select run_id as "run_id!", lane_id, kind::text, stage::text as "stage!",
                              health::text as "health!", action::text as "action!", jobs
                         from sweep_runs($1, $2)"#,
                    term.epoch,
                    batch
                )
                .fetch_all(&self.pool)
                .await?
            }
        };
        rows.into_iter()
            .map(|r| {
                Ok(Step {
                    run_id: r.run_id,
                    lane_id: r.lane_id,
                    kind: r.kind.map(|k| k.parse()).transpose()?,
                    stage: r.stage.parse()?,
                    health: r.health.parse()?,
                    action: r.action.parse()?,
                    jobs: r.jobs.unwrap_or_default(),
                })
            })
            .collect()
    }

    /// Forgets what was noted about jobs and runs that have ended.
    ///
    /// # Errors
    /// [`super::Error::Deposed`] when another node leads; the database's.
    pub async fn prune_staleness(&self, term: Term, batch: i32) -> Result<()> {
        sqlx::query!("select prune_staleness($1, $2)", term.epoch, batch).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// A page of the jobs that are near their threshold or beyond, lane by lane, in each the oldest first; the total is
    /// counted up to `count_max`.
    ///
    /// # Errors
    /// The database's.
    pub async fn stale_jobs(
        &self,
        filter: &StalenessFilter,
        page: &PageRequest<Place>,
        count_max: i64,
    ) -> Result<Page<StaleJob>> {
        let items = list(&self.pool, filter, page.after, page.limit + 1).await?;
        let total = if page.count {
            let counted = self.stale_counts(filter, count_max + 1).await?.iter().map(|c| c.2).sum::<i64>();
            (counted <= count_max).then_some(counted)
        } else {
            None
        };
        Ok(Page::new(items, page, total))
    }

    /// How many jobs are near their threshold or beyond, by kind; not more than `count_max` in all are counted.
    ///
    /// # Errors
    /// The database's.
    pub async fn stale_counts(
        &self,
        filter: &StalenessFilter,
        count_max: i64,
    ) -> Result<Vec<(JobKind, Health, i64)>> {
        let kinds = filter.kinds.as_ref().map(|k| k.iter().map(|k| k.as_str()).collect::<Vec<_>>());
        let rows = sqlx::query!(
            r#"select kind::text as "kind!", health::text as "health!", count(*) as "n!"
                 from stale_jobs($1, $2::text[]::job_kind[], $3::text::staleness_stage, $4::text::staleness_health,
                                 null, null, null, null, $5)
                group by kind, health"#,
            filter.run_id,
            kinds.as_deref() as Option<&[&str]>,
            filter.stage.map(|s| s.as_str()),
            filter.health.map(|h| h.as_str()),
            count_max
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|r| Ok((r.kind.parse()?, r.health.parse()?, r.n))).collect()
    }
}

impl Store {
    /// Which of these jobs wait for long, by job.
    ///
    /// # Errors
    /// The database's.
    pub async fn stale_notes(&self, jobs: &[i64]) -> Result<HashMap<i64, StaleNote>> {
        let rows = sqlx::query!(
            r#"select job_id as "job_id!", age_ms as "age_ms!", threshold_ms as "threshold_ms!",
                      action::text as "action!"
                 from v_task_staleness_monitoring
                where job_id = any ($1) and state = 'pending' and health <> 'ok'"#,
            jobs
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                let note =
                    StaleNote { age_ms: r.age_ms, threshold_ms: r.threshold_ms, action: r.action.parse()? };
                Ok((r.job_id, note))
            })
            .collect()
    }
}

/// A row of `v_run_staleness`.
struct RunRow {
    run_id: Uuid,
    since: DateTime<Utc>,
    age_ms: i64,
    threshold_ms: i64,
    health: String,
    action: String,
}

impl TryFrom<RunRow> for StaleRun {
    type Error = Error;
    fn try_from(row: RunRow) -> Result<Self> {
        let RunRow { run_id, since, age_ms, threshold_ms, health, action } = row;
        Ok(Self { run_id, since, age_ms, threshold_ms, health: health.parse()?, action: action.parse()? })
    }
}

impl Store {
    /// Which of these runs are near their threshold or beyond, by run.
    ///
    /// # Errors
    /// The database's.
    pub async fn staleness_of_runs(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, StaleRun>> {
        let rows = sqlx::query_as!(
            RunRow,
            r#"select run_id as "run_id!", since as "since!", age_ms as "age_ms!", threshold_ms as "threshold_ms!",
                      health::text as "health!", action::text as "action!"
                 from v_run_staleness where run_id = any ($1) and health <> 'ok'"#,
            runs
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| Ok((row.run_id, row.try_into()?))).collect()
    }

    /// The runs that are near their threshold or beyond, the oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn stale_runs(&self, limit: i64) -> Result<Vec<StaleRun>> {
        let rows = sqlx::query_as!(
            RunRow,
            r#"select run_id as "run_id!", since as "since!", age_ms as "age_ms!", threshold_ms as "threshold_ms!",
                      health::text as "health!", action::text as "action!"
                 from v_run_staleness where health <> 'ok' order by since, run_id limit $1"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(StaleRun::try_from).collect()
    }
}

async fn list(
    pool: &Connections,
    filter: &StalenessFilter,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<StaleJob>> {
    let kinds = filter.kinds.as_ref().map(|k| k.iter().map(|k| k.as_str()).collect::<Vec<_>>());
    let rows = sqlx::query!(
        r#"select job_id as "job_id!", run_id as "run_id!", lane_id as "lane_id!", kind::text as "kind!", model,
                  stage::text as "stage!", at as "at!", since as "since!", age_ms as "age_ms!",
                  threshold_ms as "threshold_ms!", health::text as "health!", action::text as "action!"
             from stale_jobs($1, $2::text[]::job_kind[], $3::text::staleness_stage, $4::text::staleness_health,
                             $5, $6::text::staleness_stage, $7, $8, $9)"#,
        filter.run_id,
        kinds.as_deref() as Option<&[&str]>,
        filter.stage.map(|s| s.as_str()),
        filter.health.map(|h| h.as_str()),
        after.map(|p| p.lane_id),
        after.map(|p| p.stage.as_str()),
        after.map(|p| p.at),
        after.map(|p| p.job_id),
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(StaleJob {
                job_id: r.job_id,
                run_id: r.run_id,
                lane_id: r.lane_id,
                kind: r.kind.parse()?,
                model: r.model,
                stage: r.stage.parse()?,
                at: r.at,
                since: r.since,
                age_ms: r.age_ms,
                threshold_ms: r.threshold_ms,
                health: r.health.parse()?,
                action: r.action.parse()?,
            })
        })
        .collect()
}
