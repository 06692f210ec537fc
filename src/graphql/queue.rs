//! The whole queue.

use async_graphql::{ID, SimpleObject};
use chrono::{DateTime, Utc};

use super::rate_limit::RateLimit;
use crate::domain::view;

/// The whole queue at a glance, over the runs of everybody.
#[derive(SimpleObject)]
pub(super) struct QueueStatus {
    /// Always the same: there is one queue.
    id: ID,
    /// Whether an admin paused everything.
    is_paused: bool,
    /// Since when it is paused.
    paused_at: Option<DateTime<Utc>>,
    /// Who paused it.
    paused_by: Option<String>,
    /// Why it was paused.
    pause_reason: Option<String>,
    /// Providers that refused everybody (a key, an empty account): their jobs wait until an admin says `releaseLimit`.
    held_providers: Vec<RateLimit>,
    /// One entry a type, always all of them.
    jobs: Vec<JobTypeStatus>,
    /// Wait now.
    total_pending: i64,
    /// Run now.
    total_active: i64,
    /// Completed in the last 24 hours.
    total_completed: i64,
    /// Failed in the last 24 hours.
    total_failed: i64,
}

/// The jobs of one type.
#[derive(SimpleObject)]
pub(super) struct JobTypeStatus {
    /// `probe:scenario`, `analyze:basic` or `analyze:deep`.
    #[graphql(name = "type")]
    kind: &'static str,
    /// Wait now.
    pending: i64,
    /// Run now.
    active: i64,
    /// Completed in the last 24 hours.
    completed: i64,
    /// Failed in the last 24 hours.
    failed: i64,
}

impl From<view::QueueStatus> for QueueStatus {
    fn from(status: view::QueueStatus) -> Self {
        let total = |of: fn(&view::KindStatus) -> i64| status.kinds.iter().map(of).sum();
        Self {
            id: ID::from("queue"),
            is_paused: status.paused_at.is_some(),
            total_pending: total(|k| k.pending),
            total_active: total(|k| k.active),
            total_completed: total(|k| k.completed),
            total_failed: total(|k| k.failed),
            paused_at: status.paused_at,
            held_providers: status.held_providers.into_iter().map(RateLimit::from).collect(),
            jobs: status
                .kinds
                .iter()
                .map(|k| JobTypeStatus {
                    kind: k.kind.as_str(),
                    pending: k.pending,
                    active: k.active,
                    completed: k.completed,
                    failed: k.failed,
                })
                .collect(),
            paused_by: status.paused_by,
            pause_reason: status.pause_reason,
        }
    }
}
