//! What happened.

use async_graphql::{Context, Enum, ID, Json, Result, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::arguments::page_request;
use super::connection::Connection;
use super::context::ContextExt;
use super::job::Attempt;
use crate::domain::history;

/// What kind of thing happened.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "history::HistoryKind")]
pub(super) enum HistoryKind {
    /// Somebody did something.
    Act,
    /// Something changed, by an act or by itself.
    Transition,
    /// A node claimed a job.
    Claim,
    /// An attempt ended.
    End,
}

/// One thing that happened.
#[derive(SimpleObject, Clone)]
pub(super) struct HistoryEntry {
    /// When.
    at: DateTime<Utc>,
    /// Of which kind it is.
    kind: HistoryKind,
    /// Of an act the name of the mutation, such as `pauseRun`; else what became of the subject, such as `run.completed`
    /// or `attempt.claimed`.
    action: String,
    /// Who did it; `system` for what nobody asked for.
    actor: String,
    /// In which role; null for the system.
    role: Option<String>,
    /// The X-Request-ID of the request that did it.
    request_id: Option<String>,
    /// To what kind of thing: `run`, `job`, `lane`, `node`, `queue`, `definition` or `dead_letter`.
    subject_kind: String,
    /// To which of them.
    subject_id: ID,
    /// The run that it concerns, if one.
    run_id: Option<ID>,
    /// What changed, as it was before; null where nothing was.
    before: Option<Json<Value>>,
    /// What changed, as it was after.
    after: Option<Json<Value>>,
    /// In words.
    note: Option<String>,
    /// Of a CLAIM and an END: the attempt.
    attempt: Option<Attempt>,
}

impl From<history::HistoryEntry> for HistoryEntry {
    fn from(entry: history::HistoryEntry) -> Self {
        Self {
            at: entry.key.at,
            kind: entry.kind.into(),
            action: entry.action,
            actor: entry.actor,
            role: entry.role,
            request_id: entry.request_id,
            subject_kind: entry.subject_kind,
            subject_id: entry.subject_id.into(),
            run_id: entry.run_id.map(ID::from),
            before: entry.before.map(Json),
            after: entry.after.map(Json),
            note: entry.note,
            attempt: entry.attempt.map(Attempt::from),
        }
    }
}

/// A page of the history of something that whoever asks may see.
pub(super) async fn history_of(
    ctx: &Context<'_>,
    of: history::HistoryOf,
    first: i32,
    after: Option<&str>,
) -> Result<Connection<HistoryEntry>> {
    let page = page_request::<history::HistoryEntry>(ctx, first, after)?;
    Ok(Connection::new(ctx.service()?.history_of(of, &page).await?, HistoryEntry::from))
}
