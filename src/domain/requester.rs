//! Who asks.

use super::text_enum::text_enum;

text_enum! {
    /// What a person may do.
    Role {
        /// Sees all, changes nothing.
        Viewer = "viewer",
        /// Sees and controls its own runs.
        User = "user",
        /// Does everything.
        Admin = "admin",
    }
}

/// The person behind a request, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    /// The token's `sub`.
    pub subject: String,
    /// The token's `role`.
    pub role: Role,
    /// The token's `group`: whose money the runs spend besides the person's own.
    pub group: Option<String>,
    /// The `X-Request-ID` of the request; empty where there is none.
    pub request_id: String,
}

impl Requester {
    /// Whether this person may see what `owner` created.
    #[must_use]
    pub fn may_see(&self, owner: &str) -> bool {
        self.role != Role::User || self.subject == owner
    }

    /// Whether this person may control what `owner` created.
    #[must_use]
    pub fn may_control(&self, owner: &str) -> bool {
        match self.role {
            Role::Viewer => false,
            Role::User => self.subject == owner,
            Role::Admin => true,
        }
    }
}

/// Names one request in the log and in its response (`X-Request-ID`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);
