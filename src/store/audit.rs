//! Who did what, recorded in the transaction that does it: nothing is recorded of what was refused or undone.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;

/// What a person can change of a run.
pub(super) async fn run_facts(c: &mut PgConnection, run: Uuid) -> Result<Option<Value>> {
    Ok(sqlx::query_scalar!("select run_facts($1)", run).fetch_one(c).await?)
}

/// Records an act on a run with what it changed since it had the facts `before`; none if it changed nothing.
pub(super) async fn record_run_change(
    c: &mut PgConnection,
    action: &str,
    run: Uuid,
    before: Option<Value>,
) -> Result<()> {
    sqlx::query!(
        "select record_change($1, 'run', $2::uuid::text, $2, $3, run_facts($2))",
        action,
        run,
        before
    )
    .fetch_one(c)
    .await?;
    Ok(())
}

/// What a person can change of a job.
pub(super) async fn job_facts(c: &mut PgConnection, job: i64) -> Result<Option<Value>> {
    Ok(sqlx::query_scalar!("select job_facts($1)", job).fetch_one(c).await?)
}

/// Records an act on a job of this run with what it changed since it had the facts `before`; none if it changed
/// nothing.
pub(super) async fn record_job_change(
    c: &mut PgConnection,
    action: &str,
    job: i64,
    run: Uuid,
    before: Option<Value>,
) -> Result<()> {
    sqlx::query!(
        "select record_change($1, 'job', $2::bigint::text, $3, $4, job_facts($2))",
        action,
        job,
        run,
        before
    )
    .fetch_one(c)
    .await?;
    Ok(())
}
