//! What people do to runs and jobs.
//!
//! Each function locks in the order gate, lanes, jobs, runs; shows the caller what it found; and applies the change if
//! the caller allows it. When one of them has returned, the change is in force on every node.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{job_facts, record_job_change, record_run_change, run_facts};
use super::crash::crash_point;
use super::retry::{retry_job, take_back};
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::{CancelMode, JobKind, JobState, RunStatus};

/// What may be done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunChange {
    /// Let no further job start.
    Pause,
    /// Let jobs start again.
    Resume,
    /// Cancel what waits; with [`CancelMode::Immediate`] also what runs.
    Cancel(CancelMode),
    /// Change the place in the queue, 0 to 100.
    SetPriority(i16),
    /// Compute an analysis (anew).
    StartAnalysis(JobKind),
}

/// What may be done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChange {
    /// Cancel it if it waits; ask its worker to stop if it runs.
    Cancel,
    /// Make the failed job wait again, as a new epoch.
    Retry,
}

impl RunChange {
    /// What the audit calls it: the name of the mutation.
    const fn action(self) -> &'static str {
        match self {
            Self::Pause => "pauseRun",
            Self::Resume => "resumeRun",
            Self::Cancel(_) => "cancelRun",
            Self::SetPriority(_) => "setRunPriority",
            Self::StartAnalysis(_) => "startAnalysis",
        }
    }
}

impl JobChange {
    /// What the audit calls it: the name of the mutation.
    const fn action(self) -> &'static str {
        match self {
            Self::Cancel => "cancelJob",
            Self::Retry => "retryJob",
        }
    }
}

/// A run as a decision needs it, locked.
#[derive(Debug, Clone)]
pub struct RunHead {
    /// The run.
    pub id: Uuid,
    /// Its status now.
    pub status: RunStatus,
    /// Its owner.
    pub created_by: String,
    /// Nothing of it that waits fits into its budget.
    pub is_out_of_budget: bool,
}

/// A job as a decision needs it, locked.
#[derive(Debug, Clone)]
pub struct JobHead {
    /// The job.
    pub id: i64,
    /// Its effective state: a waiting job of a closed lane is cancelled.
    pub state: JobState,
    /// What it does.
    pub kind: JobKind,
    /// Its run.
    pub run: RunHead,
}

impl Store {
    /// Changes a run if `allow` agrees. `None`: there is no such run. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn control_run<E: Send + 'static>(
        &self,
        id: Uuid,
        change: RunChange,
        allow: impl Fn(&RunHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let allow = Arc::new(allow);
        in_transaction(self, move |c| {
            let allow = Arc::clone(&allow);
            Box::pin(async move {
                lock_gate(c).await?;
                lock_lanes(c, id).await?;
                let Some(run) = lock_run(c, id).await? else { return Ok(None) };
                if let Err(refused) = allow(&run) {
                    return Ok(Some(Err(refused)));
                }
                let before = run_facts(c, id).await?;
                apply(c, &run, change).await?;
                record_run_change(c, change.action(), id, before).await?;
                crash_point(change.points().0);
                Ok(Some(Ok(())))
            })
        })
        .await
        .inspect(|_| crash_point(change.points().1))
    }

    /// Changes a job if `allow` agrees. `None`: there is no such job. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn control_job<E: Send + 'static>(
        &self,
        id: i64,
        change: JobChange,
        allow: impl Fn(&JobHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let allow = Arc::new(allow);
        in_transaction(self, move |c| {
            let allow = Arc::clone(&allow);
            Box::pin(async move {
                lock_gate(c).await?;
                // All lanes of the run: a retry may reopen them.
                let lanes = sqlx::query!(
                    r#"select l.id, l.run_id, l.kind::text as "kind!", l.is_open,
                              l.id = (select j.lane_id from any_job j where j.id = $1) as "is_its_own!"
                         from lane l
                        where l.run_id = (select o.run_id from any_job j join lane o on o.id = j.lane_id
                                           where j.id = $1)
                        order by l.id for update"#,
                    id
                )
                .fetch_all(&mut *c)
                .await?;
                let Some(lane) = lanes.into_iter().find(|l| l.is_its_own) else { return Ok(None) };
                // An archived job needs no lock of its own: nobody takes it out of the archive without its lane.
                sqlx::query!("select id from job where id = $1 for update", id)
                    .fetch_optional(&mut *c)
                    .await?;
                let state = sqlx::query_scalar!(
                    r#"select state::text as "state!" from any_job where id = $1 limit 1"#,
                    id
                )
                .fetch_optional(&mut *c)
                .await?;
                // Purged between the two looks.
                let Some(state) = state else { return Ok(None) };
                let Some(run) = lock_run(c, lane.run_id).await? else { return Ok(None) };
                let state = match state.parse()? {
                    JobState::Pending if !lane.is_open => JobState::Cancelled,
                    state => state,
                };
                let job = JobHead { id, state, kind: lane.kind.parse()?, run };
                if let Err(refused) = allow(&job) {
                    return Ok(Some(Err(refused)));
                }
                if change == JobChange::Retry {
                    take_back(c, id).await?;
                }
                let before = job_facts(c, id).await?;
                match (change, job.state) {
                    (JobChange::Cancel, JobState::Active) => request_cancel(c, &[lane.id], Some(id)).await?,
                    (JobChange::Cancel, _) => cancel_waiting_job(c, &job, lane.id).await?,
                    (JobChange::Retry, _) => retry_job(c, &job).await?,
                }
                record_job_change(c, change.action(), id, job.run.id, before).await?;
                crash_point(change.points().0);
                Ok(Some(Ok(())))
            })
        })
        .await
        .inspect(|_| crash_point(change.points().1))
    }
}

/// Waits for the claims that are under way, and holds further ones off until the transaction ends.
pub(super) async fn lock_gate(c: &mut PgConnection) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(gate())").fetch_one(c).await?;
    Ok(())
}

/// Locks all lanes of a run.
pub(super) async fn lock_lanes(c: &mut PgConnection, run: Uuid) -> Result<()> {
    sqlx::query!("select id from lane where run_id = $1 order by id for update", run).fetch_all(c).await?;
    Ok(())
}

/// Tells the nodes that work may have become claimable.
pub(super) async fn wake(c: &mut PgConnection) -> Result<()> {
    sqlx::query!("select pg_notify('runlane_wake', '')").fetch_one(c).await?;
    Ok(())
}

pub(super) async fn lock_run(c: &mut PgConnection, id: Uuid) -> Result<Option<RunHead>> {
    let row = sqlx::query!(
        r#"select status::text as "status!", created_by,
                  budget_usd is not null and budget_is_used_up(id) as "is_out_of_budget!"
             from run where id = $1 and deleted_at is null for update"#,
        id
    )
    .fetch_optional(c)
    .await?;
    row.map(|r| {
        let (status, created_by) = (r.status.parse()?, r.created_by);
        Ok(RunHead { id, status, created_by, is_out_of_budget: r.is_out_of_budget })
    })
    .transpose()
}

async fn apply(c: &mut PgConnection, run: &RunHead, change: RunChange) -> Result<()> {
    match change {
        RunChange::Pause => set_paused(c, run.id, true).await,
        RunChange::Resume => {
            set_paused(c, run.id, false).await?;
            wake(c).await
        }
        RunChange::Cancel(mode) => cancel(c, run, mode).await,
        RunChange::SetPriority(priority) => set_priority(c, run.id, priority).await,
        RunChange::StartAnalysis(kind) => {
            sqlx::query!("select start_analysis($1, $2::text::job_kind)", run.id, kind.as_str())
                .fetch_one(c)
                .await?;
            Ok(())
        }
    }
}

async fn set_paused(c: &mut PgConnection, run: Uuid, paused: bool) -> Result<()> {
    sqlx::query!(
        "update lane set is_paused = $2, version = version + 1, updated_at = clock_timestamp() where run_id = $1",
        run,
        paused
    )
    .execute(&mut *c)
    .await?;
    sqlx::query!(
        "update run
            set status = case when $2 then 'PAUSED' else 'RUNNING' end::run_status,
                paused_at = case when $2 then clock_timestamp() end,
                updated_at = clock_timestamp(), version = version + 1
          where id = $1",
        run,
        paused
    )
    .execute(c)
    .await?;
    Ok(())
}

async fn set_priority(c: &mut PgConnection, run: Uuid, priority: i16) -> Result<()> {
    sqlx::query!("update lane set priority = $2 where run_id = $1", run, priority).execute(&mut *c).await?;
    sqlx::query!(
        "update run set priority = $2, updated_at = clock_timestamp(), version = version + 1 where id = $1",
        run,
        priority
    )
    .execute(c)
    .await?;
    Ok(())
}

async fn cancel(c: &mut PgConnection, run: &RunHead, mode: CancelMode) -> Result<()> {
    let lanes = sqlx::query_scalar!("select id from lane where run_id = $1 order by id", run.id)
        .fetch_all(&mut *c)
        .await?;
    if mode == CancelMode::Immediate {
        request_cancel(c, &lanes, None).await?;
    }
    if run.status == RunStatus::Cancelled {
        if mode == CancelMode::Immediate {
            sqlx::query!(
                "update run set cancel_mode = 'IMMEDIATE', updated_at = clock_timestamp(), version = version + 1
                  where id = $1 and cancel_mode <> 'IMMEDIATE'",
                run.id
            )
            .execute(c)
            .await?;
        }
        return Ok(());
    }
    // A waiting analysis is a single row: rewritten at once, found where it waits, not among the run's jobs. Waiting probes are
    // cancelled by closing their lanes, and their rows are rewritten by maintenance.
    sqlx::query!(
        "with cancelled as (
            update job set state = 'cancelled', finished_at = clock_timestamp()
             where id = any (array(
                select w.job_id from lane l join waiting_job w on w.lane_id = l.id
                 where l.run_id = $1 and l.kind <> 'probe:scenario' and l.pending > 0))
            returning id
         )
         select record_act('job.cancelled', 'job', c.id::text, $1, jsonb_build_object('state', 'pending'),
                           jsonb_build_object('state', 'cancelled'))
           from cancelled c",
        run.id
    )
    .fetch_all(&mut *c)
    .await?;
    sqlx::query!(
        "update lane
            set cancelled = cancelled + pending, pending = 0, is_live = active > 0, is_paused = false,
                held_at = null, hold_reason = null, hold_fingerprint = null,
                is_open = kind <> 'probe:scenario',
                closed_at = case when kind = 'probe:scenario' then clock_timestamp() end,
                is_settled = kind <> 'probe:scenario' or pending = 0,
                version = version + 1, updated_at = clock_timestamp()
          where run_id = $1",
        run.id
    )
    .execute(&mut *c)
    .await?;
    sqlx::query!(
        "update run
            set status = 'CANCELLED', cancel_mode = $2, completed_at = clock_timestamp(), paused_at = null,
                updated_at = clock_timestamp(), version = version + 1
          where id = $1",
        run.id,
        mode.as_str()
    )
    .execute(&mut *c)
    .await?;
    // With nothing active there is no completion that would start the analysis of what there is.
    sqlx::query!("select finish_runs(array[$1::uuid])", run.id).fetch_one(c).await?;
    Ok(())
}

/// Asks the nodes to stop the active jobs of these lanes (or the one job).
async fn request_cancel(c: &mut PgConnection, lanes: &[i64], job: Option<i64>) -> Result<()> {
    sqlx::query!(
        "update job set cancel_requested = true
          where (state = 'active' or is_fresh)
            and id = any (array(select a.id from active_job a
                                 where a.lane_id = any ($1) and ($2::bigint is null or a.id = $2)))",
        lanes,
        job
    )
    .execute(&mut *c)
    .await?;
    sqlx::query!("select pg_notify('runlane_cancel', '')").fetch_one(c).await?;
    Ok(())
}

async fn cancel_waiting_job(c: &mut PgConnection, job: &JobHead, lane: i64) -> Result<()> {
    sqlx::query!(
        "update job set state = 'cancelled', is_fresh = false, finished_at = clock_timestamp() where id = $1",
        job.id
    )
    .execute(&mut *c)
    .await?;
    sqlx::query!(
        "update lane
            set pending = pending - 1, cancelled = cancelled + 1, is_live = pending - 1 + active > 0,
                version = version + 1, updated_at = clock_timestamp()
          where id = $1",
        lane
    )
    .execute(&mut *c)
    .await?;
    if !job.kind.is_analysis() {
        sqlx::query!("select finish_runs(array[$1::uuid])", job.run.id).fetch_one(c).await?;
    }
    Ok(())
}
