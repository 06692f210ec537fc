//! What a deletion answers.

use async_graphql::{ID, SimpleObject};
use chrono::{DateTime, Utc};

use crate::service;

/// Something that was deleted: hidden at once, and removed for good later.
#[derive(SimpleObject)]
pub(super) struct Deletion {
    /// Of the run or the definition.
    id: ID,
    /// Since when it is hidden.
    deleted_at: DateTime<Utc>,
    /// Who deleted it.
    deleted_by: String,
    /// From then on it is removed for good; until then an admin can restore a run.
    removed_after: DateTime<Utc>,
}

impl From<service::Deletion> for Deletion {
    fn from(deletion: service::Deletion) -> Self {
        Self {
            id: deletion.id.into(),
            deleted_at: deletion.deleted_at,
            deleted_by: deletion.deleted_by,
            removed_after: deletion.removed_after,
        }
    }
}
