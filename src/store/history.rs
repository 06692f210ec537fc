//! The audit and the attempts as one history, newest first. Neither is copied into the other.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::history::{HistoryEntry, HistoryKey, HistoryKind, HistoryOf};
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::Attempt;

#[derive(sqlx::FromRow)]
struct Row {
    at: DateTime<Utc>,
    source: i32,
    id: i64,
    number: i32,
    action: String,
    actor: String,
    role: Option<String>,
    request_id: Option<String>,
    subject_kind: String,
    subject_id: String,
    run_id: Option<Uuid>,
    before: Option<Value>,
    after: Option<Value>,
    note: Option<String>,
    node_id: Option<Uuid>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    stderr_tail: Option<String>,
    fingerprint: Option<String>,
    cost_usd: Option<Decimal>,
}

impl TryFrom<Row> for HistoryEntry {
    type Error = super::Error;
    fn try_from(row: Row) -> Result<Self> {
        let attempt = match (row.node_id, row.started_at) {
            (Some(node_id), Some(started_at)) => Some(Attempt {
                job_id: row.id,
                number: row.number,
                node_id,
                started_at,
                ended_at: row.ended_at,
                outcome: row.outcome.as_deref().map(str::parse).transpose()?,
                error_code: row.error_code,
                error_message: row.error_message,
                stderr_tail: row.stderr_tail,
                fingerprint: row.fingerprint,
                cost_usd: row.cost_usd,
            }),
            _ => None,
        };
        let kind = match row.source {
            1 => HistoryKind::Claim,
            2 => HistoryKind::End,
            // What the system notes has a subject and what became of it; an act has the name of its mutation.
            _ if row.action.contains('.') => HistoryKind::Transition,
            _ => HistoryKind::Act,
        };
        Ok(Self {
            key: HistoryKey { at: row.at, source: row.source, id: row.id, number: row.number },
            kind,
            action: row.action,
            actor: row.actor,
            role: row.role,
            request_id: row.request_id,
            subject_kind: row.subject_kind,
            subject_id: row.subject_id,
            run_id: row.run_id,
            before: row.before,
            after: row.after,
            note: row.note,
            attempt,
        })
    }
}

impl Store {
    /// A page of a history, newest first; the total is counted up to `count_max`.
    ///
    /// # Errors
    /// The database's.
    pub async fn history(
        &self,
        of: HistoryOf,
        page: &PageRequest<HistoryKey>,
        count_max: i64,
    ) -> Result<Page<HistoryEntry>> {
        let mut query = entries(of, page.after);
        query.push(" select * from entry order by at desc, source desc, id desc, number desc limit ");
        query.push_bind(page.limit + 1);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        let items = rows.into_iter().map(HistoryEntry::try_from).collect::<Result<_>>()?;
        let total = if page.count {
            let mut query = entries(of, None);
            query
                .push(" select count(*) from (select from entry limit ")
                .push_bind(count_max + 1)
                .push(") as counted");
            let counted: i64 = query.build_query_scalar().fetch_one(&self.pool).await?;
            (counted <= count_max).then_some(counted)
        } else {
            None
        };
        Ok(Page::new(items, page, total))
    }
}

/// The common table expression `entry`: everything of the history beyond `after`.
fn entries(of: HistoryOf, after: Option<HistoryKey>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("with work as (");
    push_work(&mut query, of);
    query.push(
        "), entry as (
            select a.at, 0 as source, a.id, 0 as number, a.action, a.actor, a.role, a.request_id, a.subject_kind,
                   a.subject_id, a.run_id, a.before, a.after, a.note, null::uuid as node_id,
                   null::timestamptz as started_at, null::timestamptz as ended_at, null as outcome,
                   null as error_code, null as error_message, null as stderr_tail,
                   null as fingerprint, null::numeric as cost_usd
              from audit a
             where ",
    );
    push_subject(&mut query, of);
    push_after(&mut query, "(a.at, 0, a.id, 0)", after);
    query.push(
        " union all
            select w.started_at, 1, w.job_id, w.number, 'attempt.claimed', 'system', null, null, 'job', w.job_id::text,
                   w.run_id, null, null, null, w.node_id, w.started_at, w.ended_at, w.outcome, w.error_code,
                   w.error_message, w.stderr_tail, w.fingerprint, w.cost_usd
              from work w
             where true",
    );
    push_after(&mut query, "(w.started_at, 1, w.job_id, w.number)", after);
    query.push(
        " union all
            select w.ended_at, 2, w.job_id, w.number, 'attempt.' || w.outcome, 'system', null, null, 'job',
                   w.job_id::text, w.run_id, null, null, null, w.node_id, w.started_at, w.ended_at, w.outcome,
                   w.error_code, w.error_message, w.stderr_tail, w.fingerprint, w.cost_usd
              from work w
             where w.ended_at is not null",
    );
    push_after(&mut query, "(w.ended_at, 2, w.job_id, w.number)", after);
    query.push(")");
    query
}

/// The attempts of the history, among them the claims in progress.
fn push_work(query: &mut QueryBuilder<Postgres>, of: HistoryOf) {
    let jobs = |query: &mut QueryBuilder<Postgres>| {
        match of {
            HistoryOf::All => query.push("false"),
            HistoryOf::Run(run) => query.push("l.run_id = ").push_bind(run),
            HistoryOf::Job(job) => query.push("j.id = ").push_bind(job),
            HistoryOf::Node(node) => {
                query.push("l.is_live and l.active > 0 and j.node_id = ").push_bind(node)
            }
        };
    };
    query.push(
        "select a.job_id, a.number, a.node_id, a.started_at, a.ended_at, a.outcome::text as outcome, a.error_code,
                a.error_message, a.stderr_tail, a.fingerprint, a.cost_usd, l.run_id
           from lane l join any_job j on j.lane_id = l.id
          cross join lateral (select t.* from any_attempt t where t.job_id = j.id offset 0) as a
          where ",
    );
    match of {
        // By node there is no index: it would cost every claim, and a run or a job tells the same.
        HistoryOf::Node(_) => {
            query.push("false");
        }
        _ => jobs(query),
    }
    query.push(
        " union all
         select j.id, j.claims, j.node_id, j.claimed_at, null, null, null, null, null, null, null, l.run_id
           from active_job j join lane l on l.id = j.lane_id
          where ",
    );
    jobs(query);
}

fn push_subject(query: &mut QueryBuilder<Postgres>, of: HistoryOf) {
    match of {
        HistoryOf::All => query.push("true"),
        HistoryOf::Run(run) => query.push("a.run_id = ").push_bind(run),
        HistoryOf::Job(job) => query
            .push("a.run_id = (select l.run_id from any_job j join lane l on l.id = j.lane_id where j.id = ")
            .push_bind(job)
            .push(") and (a.subject_kind = 'run' or a.subject_kind = 'job' and a.subject_id = ")
            .push_bind(job.to_string())
            .push(" or a.subject_kind = 'dead_letter' and a.subject_id in (select d.id::text from dead_letter d where d.job_id = ")
            .push_bind(job)
            .push(") or a.subject_kind = 'lane' and a.subject_id = (select j.lane_id::text from any_job j where j.id = ")
            .push_bind(job)
            .push("))"),
        HistoryOf::Node(node) => {
            query.push("a.subject_kind = 'node' and a.subject_id = ").push_bind(node.to_string())
        }
    };
}

fn push_after(query: &mut QueryBuilder<Postgres>, place: &str, after: Option<HistoryKey>) {
    if let Some(key) = after {
        query.push(" and ").push(place).push(" < (").push_bind(key.at).push(", ").push_bind(key.source);
        query.push(", ").push_bind(key.id).push(", ").push_bind(key.number).push(")");
    }
}
