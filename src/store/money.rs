//! What runs may cost.

use std::sync::Arc;

use rust_decimal::Decimal;
use uuid::Uuid;

use super::audit::{record_run_change, run_facts};
use super::control::{RunHead, lock_gate, lock_lanes, lock_run, wake};
use super::transaction::in_transaction;
use super::{Result, Store};

/// What came of setting a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetSet {
    /// It holds.
    Done,
    /// The run was started without prices for these models; nothing changed.
    Unpriced(Vec<String>),
}

impl Store {
    /// Gives a run another budget, or none, if `allow` agrees. Where what waits does not fit into it, the run's guard acts
    /// at once. `None`: there is no such run. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_run_budget<E: Send + 'static>(
        &self,
        id: Uuid,
        usd: Option<Decimal>,
        allow: impl Fn(&RunHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<BudgetSet, E>>> {
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
                let unpriced = sqlx::query_scalar!(
                    r#"select model as "model!" from lane
                        where run_id = $1 and model is not null and estimate_usd is null order by position"#,
                    id
                )
                .fetch_all(&mut *c)
                .await?;
                if usd.is_some() && !unpriced.is_empty() {
                    return Ok(Some(Ok(BudgetSet::Unpriced(unpriced))));
                }
                let before = run_facts(c, id).await?;
                sqlx::query!(
                    "update lane l set budget_usd = $2, is_guarded = $2::numeric is not null or r.max_failure_rate is not null
                       from run r where r.id = $1 and l.run_id = r.id and l.kind = 'probe:scenario'",
                    id,
                    usd
                )
                .execute(&mut *c)
                .await?;
                sqlx::query!(
                    "update run set budget_usd = $2, updated_at = clock_timestamp(), version = version + 1 where id = $1",
                    id,
                    usd
                )
                .execute(&mut *c)
                .await?;
                record_run_change(c, "setRunBudget", id, before).await?;
                sqlx::query!("select guard_runs(array(select l.id from lane l where l.run_id = $1))", id)
                    .fetch_one(&mut *c)
                    .await?;
                wake(c).await?;
                Ok(Some(Ok(BudgetSet::Done)))
            })
        })
        .await
    }

    /// Has the guards of runs act of which something waits and nothing runs, so that no end comes that would.
    ///
    /// # Errors
    /// The database's.
    pub async fn guard_idle_runs(&self) -> Result<()> {
        sqlx::query!("select guard_idle_runs()").fetch_one(&self.pool).await?;
        Ok(())
    }
}
