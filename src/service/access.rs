//! Who may do what, and the ids that people give.

use std::str::FromStr;

use super::{Entity, Error, Result};
use crate::domain::{Requester, Role};

/// Refuses those who may change nothing.
///
/// # Errors
/// FORBIDDEN for a viewer.
pub(super) fn require_writer(requester: &Requester) -> Result<()> {
    match requester.role {
        Role::Viewer => Err(Error::Forbidden(
            "A viewer sees everything and changes nothing: ask for a token with the role user.".to_owned(),
        )),
        Role::User | Role::Admin => Ok(()),
    }
}

/// Refuses all but admins.
///
/// # Errors
/// FORBIDDEN for a viewer or a user.
pub(super) fn require_admin(requester: &Requester) -> Result<()> {
    match requester.role {
        Role::Admin => Ok(()),
        Role::Viewer | Role::User => {
            Err(Error::Forbidden("Only an admin may do this: it concerns the runs of everybody.".to_owned()))
        }
    }
}

/// Reads an id; a text that is none is the id of nothing.
///
/// # Errors
/// NOT_FOUND for a text that is no id.
pub(super) fn parse_id<T: FromStr>(what: Entity, id: &str) -> Result<T> {
    id.parse().map_err(|_| not_found(what, id))
}

pub(super) fn not_found(what: Entity, id: &str) -> Error {
    Error::NotFound { what, id: id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(role: Role) -> Requester {
        Requester { subject: "ada".to_owned(), role, group: None, request_id: String::new() }
    }

    #[test]
    fn a_viewer_changes_nothing_and_only_an_admin_changes_the_queue() {
        let writers: Vec<_> = Role::ALL.iter().filter(|r| require_writer(&with(**r)).is_ok()).collect();
        assert_eq!(writers, [&Role::User, &Role::Admin]);
        let admins: Vec<_> = Role::ALL.iter().filter(|r| require_admin(&with(**r)).is_ok()).collect();
        assert_eq!(admins, [&Role::Admin]);
        assert_eq!(require_writer(&with(Role::Viewer)).unwrap_err().code(), "FORBIDDEN");
    }

    #[test]
    fn what_is_no_id_is_the_id_of_nothing() {
        assert_eq!(parse_id::<uuid::Uuid>(Entity::Run, "nonsense").unwrap_err().code(), "NOT_FOUND");
        assert_eq!(parse_id::<i64>(Entity::Job, "99999999999999999999").unwrap_err().code(), "NOT_FOUND");
        assert_eq!(parse_id::<i64>(Entity::Job, "7").unwrap(), 7);
    }
}
