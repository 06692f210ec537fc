//! Runs, each read with its lanes in one statement: a revision is never newer than the status beside it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::crash::LaneHold;
use crate::domain::filter::RunFilter;
use crate::domain::guard::{Budget, FailureGuard, Halt, RunGuards};
use crate::domain::page::{Page, PageRequest};
use crate::domain::prices::ModelCost;
use crate::domain::view::{Counts, ModelProgress, Run, RunContent};

/// What follows the common table expression `page (id)`. Lanes are sorted once for all of their lists.
const SELECT: &str = "
select r.id, r.seq, r.batch_id, r.definition_id, r.name, r.experiment_id, r.models,
       r.status::text as status, r.priority, r.max_concurrency, r.sample_percentage, r.sample_seed,
       r.sample_algorithm, r.metadata, r.created_by, r.created_at, r.started_at, r.completed_at,
       greatest(r.updated_at, lanes.updated_at) as updated_at,
       r.version + coalesce(lanes.version, 0) as revision,
       r.budget_usd, r.on_budget, r.max_failure_rate, r.min_finished, r.on_failure_rate, r.halted_by, r.halt_reason,
       lanes.reserved_usd,
       lanes.cost_usd, lanes.model, lanes.total, lanes.pending, lanes.active, lanes.completed, lanes.failed,
       lanes.cancelled, lanes.costs_usd, lanes.pricing, lanes.held_at, lanes.hold_reason
  from page
  join run r on r.id = page.id and r.deleted_at is null
 cross join lateral (
    select sum(l.version)::bigint as version, max(l.updated_at) as updated_at, sum(l.cost_usd) as cost_usd,
           coalesce(sum(l.active * job_reserve(l)), 0) as reserved_usd,
           coalesce(array_agg(l.model) filter (where l.model is not null), '{}') as model,
           coalesce(array_agg(l.total) filter (where l.model is not null), '{}') as total,
           coalesce(array_agg(l.pending) filter (where l.model is not null), '{}') as pending,
           coalesce(array_agg(l.active) filter (where l.model is not null), '{}') as active,
           coalesce(array_agg(l.completed) filter (where l.model is not null), '{}') as completed,
           coalesce(array_agg(l.failed) filter (where l.model is not null), '{}') as failed,
           coalesce(array_agg(l.cancelled) filter (where l.model is not null), '{}') as cancelled,
           coalesce(array_agg(l.cost_usd) filter (where l.model is not null), '{}') as costs_usd,
           coalesce(array_agg(l.pricing) filter (where l.model is not null), '{}') as pricing,
           coalesce(array_agg(l.held_at) filter (where l.model is not null), '{}') as held_at,
           coalesce(array_agg(l.hold_reason) filter (where l.model is not null), '{}') as hold_reason
      from (select * from lane l where l.run_id = r.id order by l.position) as l
 ) as lanes
 order by r.seq desc";

#[derive(sqlx::FromRow)]
struct RunRow {
    id: Uuid,
    seq: i64,
    batch_id: Uuid,
    definition_id: Uuid,
    name: Option<String>,
    experiment_id: Option<String>,
    models: Vec<String>,
    status: String,
    priority: i16,
    max_concurrency: Option<i32>,
    sample_percentage: i16,
    sample_seed: i32,
    sample_algorithm: String,
    metadata: Option<Value>,
    created_by: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    revision: i64,
    cost_usd: Option<Decimal>,
    reserved_usd: Decimal,
    #[sqlx(flatten)]
    guard: GuardColumns,
    #[sqlx(flatten)]
    lanes: LaneColumns,
}

/// What the run's own guard goes by, and what it has done.
#[derive(sqlx::FromRow)]
struct GuardColumns {
    budget_usd: Option<Decimal>,
    on_budget: String,
    max_failure_rate: Option<f64>,
    min_finished: Option<i32>,
    on_failure_rate: String,
    halted_by: Option<String>,
    halt_reason: Option<String>,
}

impl GuardColumns {
    fn into_guards(self, reserved_usd: Decimal) -> Result<RunGuards> {
        let (on_budget, on_failure_rate) = (self.on_budget.parse()?, self.on_failure_rate.parse()?);
        let limits = self.max_failure_rate.zip(self.min_finished);
        Ok(RunGuards {
            budget: self.budget_usd.map(|usd| Budget { usd, action: on_budget }),
            reserved_usd,
            failures: limits.map(|(max_rate, min_finished)| FailureGuard {
                max_rate,
                min_finished,
                action: on_failure_rate,
            }),
            halt: self.halted_by.zip(self.halt_reason).map(|(by, reason)| Halt { by, reason }),
        })
    }
}

/// The probe lanes of a run as parallel lists, in the order of its models.
#[derive(sqlx::FromRow)]
struct LaneColumns {
    model: Vec<String>,
    total: Vec<i32>,
    pending: Vec<i32>,
    active: Vec<i32>,
    completed: Vec<i32>,
    failed: Vec<i32>,
    cancelled: Vec<i32>,
    costs_usd: Vec<Option<Decimal>>,
    pricing: Vec<Option<Value>>,
    held_at: Vec<Option<DateTime<Utc>>>,
    hold_reason: Vec<Option<String>>,
}

impl LaneColumns {
    fn into_progress(self) -> Vec<ModelProgress> {
        let counts = |i: usize| Counts {
            total: self.total[i].into(),
            pending: self.pending[i].into(),
            active: self.active[i].into(),
            completed: self.completed[i].into(),
            failed: self.failed[i].into(),
            cancelled: self.cancelled[i].into(),
        };
        let counts: Vec<Counts> = (0..self.model.len()).map(counts).collect();
        let holds = self.held_at.into_iter().zip(self.hold_reason);
        let holds = holds.map(|(since, reason)| Some(LaneHold { since: since?, reason: reason? }));
        let costs = self.costs_usd.into_iter().zip(self.pricing);
        let costs = costs.map(|(usd, pricing)| ModelCost { usd, pricing });
        let lanes = self.model.into_iter().zip(counts).zip(costs).zip(holds);
        lanes.map(|(((model, counts), cost), hold)| ModelProgress { model, counts, cost, hold }).collect()
    }
}

impl TryFrom<RunRow> for Run {
    type Error = super::Error;
    fn try_from(row: RunRow) -> Result<Self> {
        Ok(Self {
            status: row.status.parse()?,
            guards: row.guard.into_guards(row.reserved_usd)?,
            progress_by_model: row.lanes.into_progress(),
            id: row.id,
            seq: row.seq,
            batch_id: row.batch_id,
            definition_id: row.definition_id,
            name: row.name,
            experiment_id: row.experiment_id,
            models: row.models,
            priority: row.priority,
            max_concurrency: row.max_concurrency,
            sample_percentage: row.sample_percentage,
            sample_seed: row.sample_seed,
            sample_algorithm: row.sample_algorithm,
            metadata: row.metadata,
            created_by: row.created_by,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            updated_at: row.updated_at,
            revision: row.revision,
            cost_usd: row.cost_usd,
        })
    }
}

impl Store {
    /// The run with this id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run(&self, id: Uuid) -> Result<Option<Run>> {
        Ok(self.runs_by_id(&[id]).await?.pop())
    }

    /// Those of these runs that there are; each id once.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_by_id(&self, ids: &[Uuid]) -> Result<Vec<Run>> {
        // Read in a subquery, the ids are not known to the planner: it would plan each execution anew for their number, which
        // takes five times as long as to run it.
        let mut query = QueryBuilder::new("with page as (select unnest((select ");
        query.push_bind(ids).push("::uuid[])) as id)").push(SELECT);
        let rows: Vec<RunRow> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Run::try_from).collect()
    }

    /// What each of these runs evaluates, and how.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run_contents(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, RunContent>> {
        let rows = sqlx::query!("select id, definition_snapshot, params from run where id = any($1)", ids)
            .fetch_all(&self.pool)
            .await?;
        let content = |definition_snapshot, params| RunContent { definition_snapshot, params };
        Ok(rows.into_iter().map(|r| (r.id, content(r.definition_snapshot, r.params))).collect())
    }

    /// A page of runs, newest first; the total is counted up to `count_max`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        page: &PageRequest<i64>,
        count_max: i64,
    ) -> Result<Page<Run>> {
        let rows: Vec<RunRow> = page_query(filter, page).build_query_as().fetch_all(&self.pool).await?;
        let items = rows.into_iter().map(Run::try_from).collect::<Result<_>>()?;
        let total = if page.count { self.count_runs(filter, count_max).await? } else { None };
        Ok(Page::new(items, page, total))
    }

    /// How many runs there are, if at most `count_max`.
    async fn count_runs(&self, filter: &RunFilter, count_max: i64) -> Result<Option<i64>> {
        let mut query =
            QueryBuilder::new("select count(*) from (select from run r where r.deleted_at is null");
        push_conditions(&mut query, filter);
        if let Some(statuses) = status_texts(filter) {
            query.push(" and r.status = any(").push_bind(statuses).push("::text[]::run_status[])");
        }
        query.push(" limit ").push_bind(count_max + 1).push(") as counted");
        let counted: i64 = query.build_query_scalar().fetch_one(&self.pool).await?;
        Ok((counted <= count_max).then_some(counted))
    }
}

/// The statement for a page of runs. Statuses are read one by one, each in the order of its index, and merged: an index
/// scan over several would lose the order and read them whole. They stand in the statement as literals, because the
/// planner must know which status it is: of a rare one, it would else read the whole list looking for it.
fn page_query(filter: &RunFilter, page: &PageRequest<i64>) -> QueryBuilder<Postgres> {
    let limit = page.limit + 1;
    let mut query = QueryBuilder::new("with page as materialized (select id, seq from (");
    match status_texts(filter) {
        None => push_page(&mut query, filter, page, ""),
        Some(statuses) if statuses.is_empty() => push_page(&mut query, filter, page, " and false"),
        Some(statuses) => {
            for (i, status) in statuses.into_iter().enumerate() {
                query.push(if i == 0 { "" } else { " union all " });
                push_page(&mut query, filter, page, &format!(" and r.status = '{status}'"));
            }
        }
    }
    query.push(") as runs order by seq desc limit ").push_bind(limit).push(")").push(SELECT);
    query
}

/// The newest runs of a filter that also meet `condition`.
fn push_page(
    query: &mut QueryBuilder<Postgres>,
    filter: &RunFilter,
    page: &PageRequest<i64>,
    condition: &str,
) {
    query
        .push("(select r.id, r.seq from run r where r.deleted_at is null and r.seq < ")
        .push_bind(page.after.unwrap_or(i64::MAX));
    push_conditions(query, filter);
    query.push(condition).push(" order by r.seq desc limit ").push_bind(page.limit + 1).push(")");
}

/// The statuses of a filter, each once.
fn status_texts(filter: &RunFilter) -> Option<Vec<&'static str>> {
    let mut statuses: Vec<_> = filter.statuses.as_ref()?.iter().map(|s| s.as_str()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    Some(statuses)
}

/// Everything but the statuses.
fn push_conditions(query: &mut QueryBuilder<Postgres>, filter: &RunFilter) {
    if let Some(id) = filter.definition_id {
        query.push(" and r.definition_id = ").push_bind(id);
    }
    if let Some(id) = &filter.experiment_id {
        query.push(" and r.experiment_id = ").push_bind(id.clone());
    }
    for subject in [&filter.created_by, &filter.visible_to].into_iter().flatten() {
        query.push(" and r.created_by = ").push_bind(subject.clone());
    }
    if let Some(id) = filter.batch_id {
        query.push(" and r.batch_id = ").push_bind(id);
    }
}
