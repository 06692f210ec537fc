//! Dead letters: reading them; what is done to them is in `acts`.

mod acts;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

pub use acts::{EntryHead, NewResolution};

use super::{Result, Store};
use crate::domain::dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterReason, DeadLetterStatus, Lookalikes,
};
use crate::domain::page::{Page, PageRequest};

const COLUMNS: &str = "select d.id, d.job_id, d.epoch, d.run_id, d.definition_id, d.owner, d.kind::text as kind, d.model,
       d.reason::text as reason, d.status::text as status, d.error_code, d.error_message, d.fingerprint,
       d.original_state::text as original_state, d.snapshot, d.attempts, d.metadata, d.created_at, d.resolved_at,
       d.resolved_by, d.notes, d.redriven_at
  from dead_letter d where ";

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    job_id: i64,
    epoch: i32,
    run_id: Uuid,
    definition_id: Uuid,
    owner: String,
    kind: String,
    model: Option<String>,
    reason: String,
    status: String,
    error_code: String,
    error_message: String,
    fingerprint: String,
    original_state: String,
    snapshot: Value,
    attempts: Value,
    metadata: Value,
    created_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    resolved_by: Option<String>,
    notes: Option<String>,
    redriven_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for DeadLetter {
    type Error = super::Error;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            job_id: row.job_id,
            epoch: row.epoch,
            run_id: row.run_id,
            definition_id: row.definition_id,
            owner: row.owner,
            kind: row.kind.parse()?,
            model: row.model,
            reason: row.reason.parse()?,
            status: row.status.parse()?,
            error_code: row.error_code,
            error_message: row.error_message,
            fingerprint: row.fingerprint,
            original_state: row.original_state.parse()?,
            snapshot: row.snapshot,
            attempts: row.attempts,
            metadata: row.metadata,
            created_at: row.created_at,
            resolved_at: row.resolved_at,
            resolved_by: row.resolved_by,
            notes: row.notes,
            redriven_at: row.redriven_at,
        })
    }
}

impl Store {
    /// The dead letter with this id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>> {
        let mut query = QueryBuilder::new(COLUMNS);
        query.push("d.id = ").push_bind(id);
        let row: Option<Row> = query.build_query_as().fetch_optional(&self.pool).await?;
        row.map(DeadLetter::try_from).transpose()
    }

    /// The dead letters of these jobs, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters_of(&self, jobs: &[i64]) -> Result<Vec<DeadLetter>> {
        let mut query = QueryBuilder::new(COLUMNS);
        query.push("d.job_id = any(").push_bind(jobs.to_vec()).push(") order by d.id desc");
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(DeadLetter::try_from).collect()
    }

    /// A page of dead letters, newest first; the total is counted up to `count_max`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        page: &PageRequest<i64>,
        count_max: i64,
    ) -> Result<Page<DeadLetter>> {
        let mut query = QueryBuilder::new(COLUMNS);
        query.push("d.id < ").push_bind(page.after.unwrap_or(i64::MAX));
        push_conditions(&mut query, filter);
        query.push(" order by d.id desc limit ").push_bind(page.limit + 1);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        let items = rows.into_iter().map(DeadLetter::try_from).collect::<Result<_>>()?;
        let total = if page.count { self.count_dead_letters(filter, count_max).await? } else { None };
        Ok(Page::new(items, page, total))
    }

    /// How many there are, if at most `count_max`.
    async fn count_dead_letters(&self, filter: &DeadLetterFilter, count_max: i64) -> Result<Option<i64>> {
        let mut query = QueryBuilder::new("select count(*) from (select from dead_letter d where true");
        push_conditions(&mut query, filter);
        query.push(" limit ").push_bind(count_max + 1).push(") as counted");
        let counted: i64 = query.build_query_scalar().fetch_one(&self.pool).await?;
        Ok((counted <= count_max).then_some(counted))
    }

    /// How many dead letters there are for each reason, most first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters_by_reason(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<(DeadLetterReason, i64)>> {
        let mut query = QueryBuilder::new("select d.reason::text, count(*) from dead_letter d where true");
        push_conditions(&mut query, filter);
        query.push(" group by d.reason order by 2 desc, 1");
        let rows: Vec<(String, i64)> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(|(reason, count)| Ok((reason.parse()?, count))).collect()
    }

    /// Dead letters that look the same, the most frequent first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters_by_fingerprint(
        &self,
        filter: &DeadLetterFilter,
        limit: i64,
    ) -> Result<Vec<Lookalikes>> {
        let mut query = QueryBuilder::new(
            "with groups as (
             select d.fingerprint, count(*) as count, max(d.id) as example_id, min(d.created_at) as oldest,
                    max(d.created_at) as newest
               from dead_letter d where true",
        );
        push_conditions(&mut query, filter);
        query.push(" group by d.fingerprint order by 2 desc, 1 limit ").push_bind(limit).push(
            ") select g.fingerprint, g.count, g.example_id, e.error_code, e.error_message, g.oldest, g.newest
                 from groups g join dead_letter e on e.id = g.example_id order by g.count desc, g.fingerprint",
        );
        #[derive(sqlx::FromRow)]
        struct Group {
            fingerprint: String,
            count: i64,
            example_id: i64,
            error_code: String,
            error_message: String,
            oldest: DateTime<Utc>,
            newest: DateTime<Utc>,
        }
        let rows: Vec<Group> = query.build_query_as().fetch_all(&self.pool).await?;
        let group = |g: Group| Lookalikes {
            fingerprint: g.fingerprint,
            count: g.count,
            example_id: g.example_id,
            error_code: g.error_code,
            example_message: g.error_message,
            oldest: g.oldest,
            newest: g.newest,
        };
        Ok(rows.into_iter().map(group).collect())
    }
}

/// Everything that the filter asks for. What is open stands in the statement as a literal, because the planner matches
/// the partial index by it.
fn push_conditions(query: &mut QueryBuilder<Postgres>, filter: &DeadLetterFilter) {
    if let Some(id) = filter.run_id {
        query.push(" and d.run_id = ").push_bind(id);
    }
    if let Some(reasons) = &filter.reasons {
        let reasons: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
        query.push(" and d.reason = any(").push_bind(reasons).push("::text[]::dlq_reason[])");
    }
    match filter.statuses.as_deref() {
        None => {}
        Some([DeadLetterStatus::Pending]) => {
            query.push(" and d.status = 'pending'");
        }
        Some(statuses) => {
            let statuses: Vec<&str> = statuses.iter().map(|s| s.as_str()).collect();
            query.push(" and d.status = any(").push_bind(statuses).push("::text[]::dlq_resolution_status[])");
        }
    }
    if let Some(id) = filter.definition_id {
        query.push(" and d.definition_id = ").push_bind(id);
    }
    let texts = [
        ("fingerprint", &filter.fingerprint),
        ("error_code", &filter.error_code),
        ("model", &filter.model),
        ("owner", &filter.visible_to),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            query.push(" and d.").push(column).push(" = ").push_bind(text.clone());
        }
    }
    if let Some(at) = filter.created_after {
        query.push(" and d.created_at >= ").push_bind(at);
    }
    if let Some(at) = filter.created_before {
        query.push(" and d.created_at < ").push_bind(at);
    }
}
