//! The one place where errors become GraphQL: a message for people, and extensions for programs.

use async_graphql::ErrorExtensionValues;

use crate::domain::ids;
use crate::service;

impl From<service::Error> for async_graphql::Error {
    /// What only the log may have is logged here; an internal error under a new id, which the client gets.
    fn from(error: service::Error) -> Self {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", error.code());
        for (name, value) in error.extensions() {
            match async_graphql::Value::from_json(value) {
                Ok(value) => extensions.set(name, value),
                Err(problem) => {
                    tracing::error!(name, error = %problem, "an error's extension cannot be shown")
                }
            }
        }
        match &error {
            service::Error::Internal { internal } => {
                let error_id = ids::new_id().to_string();
                tracing::error!(error_id, error = internal, "internal error");
                extensions.set("errorId", error_id);
            }
            other => {
                if let Some(internal) = other.internal_text() {
                    tracing::warn!(code = other.code(), error = internal, "a request cannot be answered now");
                }
            }
        }
        Self { message: error.to_string(), source: None, extensions: Some(extensions) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_graphql::Value;

    use super::*;
    use crate::domain::{RunAction, RunStatus, ValidationErrors};

    fn json(error: service::Error) -> serde_json::Value {
        serde_json::to_value(async_graphql::Error::from(error)).unwrap()
    }

    #[test]
    fn programs_get_the_code_and_what_belongs_to_it() {
        let refused = RunStatus::Completed.allow(RunAction::Pause).unwrap_err();
        assert_eq!(
            json(refused.into()),
            serde_json::json!({
                "message": "Cannot pause run in COMPLETED state",
                "extensions": {"code": "RUN_STATE_ERROR", "currentStatus": "COMPLETED", "action": "pause"},
            })
        );
        let wrong = json(ValidationErrors::one("input.models", "is empty").into());
        assert_eq!(wrong["extensions"]["field"], "input.models");
        assert_eq!(wrong["extensions"]["errors"][0]["message"], "is empty");
        let later = service::Error::Unavailable {
            why: "Not now".into(),
            retry_after: Duration::from_secs(1),
            internal: "x".into(),
        };
        assert_eq!(json(later)["extensions"]["retryAfterMs"], 1000);
    }

    #[test]
    fn an_internal_text_stays_inside() {
        let error = service::Error::Internal { internal: "relation \"run\" does not exist".into() };
        let error = async_graphql::Error::from(error);
        assert!(!serde_json::to_string(&error).unwrap().contains("relation"));
        assert!(error.source.is_none());
        let id = error.extensions.as_ref().and_then(|e| e.get("errorId"));
        assert!(matches!(id, Some(Value::String(id)) if id.len() == 36));
    }
}
