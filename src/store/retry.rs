//! Failed jobs that wait again.

use sqlx::PgConnection;

use super::Result;
use super::control::{JobHead, RunHead, wake};
use crate::domain::RunStatus;

/// Makes the failed jobs of these lanes (or the one job) wait again, and reopens a finished run of probes.
pub(super) async fn retry_failed(
    c: &mut PgConnection,
    run: &RunHead,
    lanes: &[i64],
    job: Option<&JobHead>,
) -> Result<()> {
    let of_probes = job.is_none_or(|j| !j.kind.is_analysis());
    let reopens = of_probes && run.status == RunStatus::Failed;
    unarchive(c, run, lanes, job, reopens).await?;
    if reopens {
        sqlx::query_file!("src/store/sql/reopen_lanes.sql", run.id).execute(&mut *c).await?;
    }
    sqlx::query_file!("src/store/sql/retry_failed.sql", lanes, job.map(|j| j.id)).execute(&mut *c).await?;
    sqlx::query!("delete from lane_error where lane_id = any ($1) and failed = 0", lanes)
        .execute(&mut *c)
        .await?;
    if of_probes && matches!(run.status, RunStatus::Completed | RunStatus::Failed) {
        sqlx::query!(
            "update run
                set status = 'RUNNING', completed_at = null, updated_at = clock_timestamp(), version = version + 1
              where id = $1",
            run.id
        )
        .execute(&mut *c)
        .await?;
    }
    wake(c).await
}

/// Brings back from the archive what a retry changes: the failed jobs of these lanes (or the one job), and, where the
/// run's guard had closed its lanes, what was cancelled by that.
async fn unarchive(
    c: &mut PgConnection,
    run: &RunHead,
    lanes: &[i64],
    job: Option<&JobHead>,
    reopens: bool,
) -> Result<()> {
    sqlx::query!(
        "select unarchive_jobs(array(
            select a.id from archived_job_failed a
             where a.lane_id = any ($1) and ($2::bigint is null or a.id = $2)
            union all
            select a.id from lane l join archived_job_cancelled a on a.lane_id = l.id
             where $3 and l.run_id = $4 and not l.is_open
               and a.finished_at >= l.closed_at and not a.cancel_requested))",
        lanes,
        job.map(|j| j.id),
        reopens,
        run.id
    )
    .fetch_one(c)
    .await?;
    Ok(())
}
