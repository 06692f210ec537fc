//! Identifiers that the program makes itself (job ids are made by the database's insert).

use uuid::Uuid;

/// A new time-ordered identifier (UUIDv7).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that makes identifiers")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
