//! Jobs as people see them, and their attempts.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::filter::JobFilter;
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::{Attempt, Job, JobError};
use crate::domain::{JobKind, JobState};

/// What follows the common table expression `page (id)`. The limit tells the planner that ids are unique over all tables
/// of jobs: with a larger guess it would read the runs whole. Waiting jobs of a closed lane are cancelled.
const SELECT: &str = "
select j.id, l.run_id, r.created_by as run_created_by, l.kind::text as kind, l.model, j.scenario_id, l.priority,
       case when j.state = 'pending' and not l.is_open then 'cancelled' else j.state::text end as state,
       j.claims, j.failures, j.losses, j.throttles, j.run_at, j.claimed_at,
       case when j.state = 'pending' then l.closed_at else j.finished_at end as finished_at,
       j.error_code, j.error_message, j.error_retryable, j.archived_at
  from page
 cross join lateral (select j.* from any_job j where j.id = page.id limit 1) as j
  join lane l on l.id = j.lane_id
  join run r on r.id = l.run_id and r.deleted_at is null
 order by j.id desc";

#[derive(sqlx::FromRow)]
struct JobRow {
    id: i64,
    run_id: Uuid,
    run_created_by: String,
    kind: String,
    model: Option<String>,
    scenario_id: Option<i64>,
    priority: i16,
    state: String,
    claims: i32,
    failures: i16,
    losses: i16,
    throttles: i32,
    run_at: DateTime<Utc>,
    claimed_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    error_code: Option<String>,
    error_message: Option<String>,
    error_retryable: Option<bool>,
    archived_at: Option<DateTime<Utc>>,
}

/// The error of a job from its columns, which are null together.
pub(super) fn job_error(
    code: Option<String>,
    message: Option<String>,
    retryable: Option<bool>,
) -> Option<JobError> {
    Some(JobError { code: code?, message: message?, retryable: retryable? })
}

impl TryFrom<JobRow> for Job {
    type Error = super::Error;
    fn try_from(row: JobRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            run_id: row.run_id,
            run_created_by: row.run_created_by,
            kind: row.kind.parse()?,
            model: row.model,
            scenario_id: row.scenario_id,
            priority: row.priority,
            state: row.state.parse()?,
            claims: row.claims,
            failures: row.failures,
            losses: row.losses,
            throttles: row.throttles,
            run_at: row.run_at,
            claimed_at: row.claimed_at,
            finished_at: row.finished_at,
            error: job_error(row.error_code, row.error_message, row.error_retryable),
            archived_at: row.archived_at,
        })
    }
}

impl Store {
    /// The job with this id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn job(&self, id: i64) -> Result<Option<Job>> {
        let mut query = QueryBuilder::new("with page as (select ");
        query.push_bind(id).push("::bigint as id)").push(SELECT);
        let row: Option<JobRow> = query.build_query_as().fetch_optional(&self.pool).await?;
        row.map(Job::try_from).transpose()
    }

    /// A page of a run's jobs, newest first. The total comes from the lanes' counters.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run_jobs(
        &self,
        run_id: Uuid,
        filter: &JobFilter,
        page: &PageRequest<i64>,
    ) -> Result<Page<Job>> {
        let rows: Vec<JobRow> =
            page_query(run_id, filter, page).build_query_as().fetch_all(&self.pool).await?;
        let items = rows.into_iter().map(Job::try_from).collect::<Result<_>>()?;
        let total = if page.count { Some(self.count_jobs(run_id, filter).await?) } else { None };
        Ok(Page::new(items, page, total))
    }

    async fn count_jobs(&self, run_id: Uuid, filter: &JobFilter) -> Result<i64> {
        let mut query = QueryBuilder::new("select coalesce(sum(");
        if filter.error_code.is_some() {
            query.push("e.failed");
        } else {
            // Counters hold the states that people see, and go on counting what has been purged.
            query.push("0");
            for state in states(filter) {
                query.push(" + l.").push(state.as_str());
                if state.is_final() {
                    query.push(" - l.purged_").push(state.as_str());
                }
            }
        }
        query.push("), 0)::bigint from lane l");
        if let Some(code) = &filter.error_code {
            query.push(" join lane_error e on e.lane_id = l.id and e.error_code = ").push_bind(code.clone());
        }
        query.push(" where l.run_id = ").push_bind(run_id);
        push_lane_conditions(&mut query, filter);
        if filter.error_code.is_some() && !states(filter).contains(&JobState::Failed) {
            query.push(" and false");
        }
        Ok(query.build_query_scalar().fetch_one(&self.pool).await?)
    }

    /// The attempts of these jobs in order, among them the claims in progress.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn attempts(&self, jobs: &[i64]) -> Result<HashMap<i64, Vec<Attempt>>> {
        let rows = sqlx::query!(
            // Job by job (`offset 0` keeps it so): only then is each table of attempts asked by its index.
            r#"
            select a.job_id as "job_id!", a.number as "number!", a.node_id as "node_id!",
                   a.started_at as "started_at!", a.ended_at, a.outcome::text, a.error_code, a.error_message,
                   a.stderr_tail, a.fingerprint, a.cost_usd
              from unnest($1::bigint[]) as asked (id)
             cross join lateral (select a.* from any_attempt a where a.job_id = asked.id offset 0) as a
            union all
            select j.id, j.claims, j.node_id, j.claimed_at, null, null, null, null, null, null, null
              from current_job j
             where j.id = any($1) and j.state = 'active'
             order by 1, 2
            "#,
            jobs
        )
        .fetch_all(&self.pool)
        .await?;
        let mut attempts: HashMap<i64, Vec<Attempt>> = HashMap::new();
        for row in rows {
            attempts.entry(row.job_id).or_default().push(Attempt {
                job_id: row.job_id,
                number: row.number,
                node_id: row.node_id,
                started_at: row.started_at,
                ended_at: row.ended_at,
                outcome: row.outcome.as_deref().map(str::parse).transpose()?,
                error_code: row.error_code,
                error_message: row.error_message,
                stderr_tail: row.stderr_tail,
                fingerprint: row.fingerprint,
                cost_usd: row.cost_usd,
            });
        }
        Ok(attempts)
    }
}

/// The statement for a page of a run's jobs: the newest of each lane and stored state that the filter admits, from an
/// index each, merged. Lanes' counters tell which states need no look.
fn page_query(run_id: Uuid, filter: &JobFilter, page: &PageRequest<i64>) -> QueryBuilder<Postgres> {
    let limit = page.limit + 1;
    let mut query = QueryBuilder::new(
        "with page as materialized (
         select j.id from lane l
          cross join unnest(enum_range(null::job_state)) as s (state)
          cross join lateral ",
    );
    let before = page.after.unwrap_or(i64::MAX);
    match &filter.error_code {
        Some(code) => query
            .push("failed_before(l.id, ")
            .push_bind(code.clone())
            .push(", ")
            .push_bind(before)
            .push(", ")
            .push_bind(limit),
        None => query.push("jobs_before(l.id, s.state, ").push_bind(before).push(", ").push_bind(limit),
    };
    query.push(") as j (id) where l.run_id = ").push_bind(run_id);
    push_lane_conditions(&mut query, filter);
    if filter.error_code.is_some() {
        query.push(" and s.state = 'failed'");
    }
    let states: Vec<&str> = states(filter).into_iter().map(JobState::as_str).collect();
    query
        .push(
            " and case s.state
                  when 'pending' then l.pending > 0 or not l.is_settled
                  when 'active' then l.active > 0
                  when 'completed' then l.completed > 0
                  when 'failed' then l.failed > 0
                  when 'cancelled' then l.cancelled > 0
                  end
              and case when s.state = 'pending' and not l.is_open then 'cancelled' else s.state end = any(",
        )
        .push_bind(states)
        .push("::text[]::job_state[]) order by j.id desc limit ")
        .push_bind(limit)
        .push(")")
        .push(SELECT);
    query
}

/// The states that a filter admits, each once.
fn states(filter: &JobFilter) -> Vec<JobState> {
    let admits = |state: &JobState| filter.states.as_ref().is_none_or(|states| states.contains(state));
    JobState::ALL.iter().copied().filter(admits).collect()
}

fn push_lane_conditions(query: &mut QueryBuilder<Postgres>, filter: &JobFilter) {
    if let Some(kinds) = &filter.kinds {
        let kinds: Vec<&str> = kinds.iter().copied().map(JobKind::as_str).collect();
        query.push(" and l.kind = any(").push_bind(kinds).push("::text[]::job_kind[])");
    }
    if let Some(model) = &filter.model {
        query.push(" and l.model = ").push_bind(model.clone());
    }
}
