//! Failed jobs that wait again.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{record_run_change, run_facts};
use super::control::{JobHead, RunHead, lock_gate, lock_lanes, lock_run};
use super::crash::crash_point;
use super::transaction::in_transaction;
use super::{Error, Result, Store};
use crate::domain::RunStatus;

/// The last job that has been looked at, lane by lane and by id.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    lane: i64,
    job: i64,
}

/// How a step ended.
enum Step<E> {
    /// Some of what the run's guard had cancelled is ready to wait again when the run is reopened.
    Opening,
    /// A whole batch waits again, and there may be more.
    Reached(Reached, i64),
    /// The last of them wait again.
    Done(i64),
    /// Nothing changed.
    Refused(E),
    /// There is no such run.
    NoRun,
}

impl Store {
    /// Makes the failed probes of a run wait again if `allow` agrees, `batch` of them in a transaction, so that claims
    /// get their turn: the first one reopens the run. What is cut off in the middle has retried some, and goes on with
    /// the rest when it is repeated; a caller that goes away does not cut it off. Each job is retried once, also one
    /// that has failed again meanwhile. `None`: there is no such run. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's; batches before it stay retried.
    pub async fn retry_failed_jobs<E: Send + 'static>(
        &self,
        id: Uuid,
        batch: i32,
        allow: impl Fn(&RunHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let (store, allow) = (self.clone(), Arc::new(allow));
        let work = async move {
            let (mut after, mut retried) = (None, 0);
            loop {
                match store.retry_step(id, after, batch, Arc::clone(&allow)).await {
                    Ok(Step::Opening) => {}
                    Ok(Step::Reached(reached, n)) => (after, retried) = (Some(reached), retried + n),
                    Ok(Step::Done(n)) => {
                        tracing::info!(run_id = %id, retried = retried + n, "failed jobs wait again");
                        return Ok(Some(Ok(())));
                    }
                    Ok(Step::Refused(refused)) => return Ok(Some(Err(refused))),
                    Ok(Step::NoRun) => return Ok(None),
                    Err(error) => {
                        // Whoever asked may not hear of it.
                        tracing::warn!(run_id = %id, retried, %error, "retrying failed jobs was cut off");
                        return Err(error);
                    }
                }
            }
        };
        let span = tracing::Span::current();
        tokio::spawn(tracing::Instrument::instrument(work, span)).await.map_err(|_| Error::Aborted)?
    }

    async fn retry_step<E: Send + 'static>(
        &self,
        id: Uuid,
        after: Option<Reached>,
        batch: i32,
        allow: Arc<impl Fn(&RunHead) -> Result<(), E> + Send + Sync + 'static>,
    ) -> Result<Step<E>> {
        in_transaction(self, move |c| {
            let allow = Arc::clone(&allow);
            Box::pin(async move {
                lock_gate(c).await?;
                lock_lanes(c, id).await?;
                let run = lock_run(c, id).await?;
                let Some(after) = after else {
                    let Some(run) = run else { return Ok(Step::NoRun) };
                    return match allow(&run) {
                        Ok(()) => retry_batch(c, &run, Reached::default(), batch).await,
                        Err(refused) => Ok(Step::Refused(refused)),
                    };
                };
                match run {
                    Some(run) if !matches!(run.status, RunStatus::Cancelled | RunStatus::Failed) => {
                        retry_batch(c, &run, after, batch).await
                    }
                    // Somebody has stopped or deleted it since: that was the last word.
                    _ => Ok(Step::Done(0)),
                }
            })
        })
        .await
        .inspect(|_| crash_point("retry.after"))
    }
}

/// Makes the next failed probes wait again, and the run go on if there are any.
async fn retry_batch<E>(c: &mut PgConnection, run: &RunHead, after: Reached, batch: i32) -> Result<Step<E>> {
    let any = sqlx::query_scalar!(
        // What has been purged cannot be retried.
        r#"select exists (select from lane
                           where run_id = $1 and kind = 'probe:scenario' and failed > purged_failed) as "any!""#,
        run.id
    )
    .fetch_one(&mut *c)
    .await?;
    if !any {
        return Ok(Step::Done(0));
    }
    if run.status == RunStatus::Failed {
        let taken_back = sqlx::query_scalar!(r#"select take_back_cancelled($1, $2) as "n!""#, run.id, batch)
            .fetch_one(&mut *c)
            .await?;
        if taken_back == batch {
            return Ok(Step::Opening);
        }
    }
    let before = run_facts(c, run.id).await?;
    reopen_lanes(c, run).await?;
    let done = sqlx::query!(
        r#"select lane_id as "lane!", job_id as "job!", retried as "retried!"
             from retry_failed_probes($1, $2, $3, $4)"#,
        run.id,
        after.lane,
        after.job,
        batch
    )
    .fetch_one(&mut *c)
    .await?;
    if done.retried > 0 {
        reopen(c, run).await?;
    }
    record_run_change(c, "retryFailedJobs", run.id, before).await?;
    crash_point("retry.before");
    Ok(if done.retried < batch {
        Step::Done(done.retried.into())
    } else {
        Step::Reached(Reached { lane: done.lane, job: done.job }, done.retried.into())
    })
}

/// Makes a failed job wait again. It is not in the archive.
pub(super) async fn retry_job(c: &mut PgConnection, job: &JobHead) -> Result<()> {
    let is_probe = !job.kind.is_analysis();
    if is_probe {
        reopen_lanes(c, &job.run).await?;
    }
    sqlx::query!("select retry_jobs(array[$1::bigint], null, 'dead_letter.retried')", job.id)
        .fetch_one(&mut *c)
        .await?;
    if is_probe { reopen(c, &job.run).await } else { Ok(()) }
}

/// Brings a job back from the archive, if it is there.
pub(super) async fn take_back(c: &mut PgConnection, job: i64) -> Result<()> {
    sqlx::query!("select unarchive_jobs(array[$1::bigint])", job).fetch_one(c).await?;
    Ok(())
}

/// Where the run's guard had closed its lanes: what was cancelled by that waits again.
async fn reopen_lanes(c: &mut PgConnection, run: &RunHead) -> Result<()> {
    if run.status != RunStatus::Failed {
        return Ok(());
    }
    sqlx::query!(
        "select unarchive_jobs(array(
            select a.id from lane l join archived_job_cancelled a on a.lane_id = l.id
             where l.run_id = $1 and not l.is_open
               and a.finished_at >= l.closed_at and not a.cancel_requested))",
        run.id
    )
    .fetch_one(&mut *c)
    .await?;
    sqlx::query_file!("src/store/sql/reopen_lanes.sql", run.id).execute(c).await?;
    Ok(())
}

/// Makes a run go on that has ended.
async fn reopen(c: &mut PgConnection, run: &RunHead) -> Result<()> {
    if matches!(run.status, RunStatus::Completed | RunStatus::Failed) {
        sqlx::query!(
            "update run
                set status = 'RUNNING', completed_at = null, updated_at = clock_timestamp(), version = version + 1
              where id = $1",
            run.id
        )
        .execute(c)
        .await?;
    }
    Ok(())
}
