//! What lists can be narrowed to.

use async_graphql::{ID, InputObject};
use uuid::Uuid;

use super::enums::{RunStatus, TaskStatus};
use crate::domain::model_id::MODEL_ID_MAX_BYTES;
use crate::domain::request::{filter_kinds, filter_text};
use crate::domain::validation::Length;
use crate::domain::{Checker, JobState, Limits, filter};
use crate::service::Result;

/// Which runs: all fields that are given must hold.
#[derive(InputObject, Debug, Default)]
pub(super) struct RunFilter {
    /// In one of these statuses; none for an empty list.
    status: Option<Vec<RunStatus>>,
    /// Of this definition.
    definition_id: Option<ID>,
    /// With this `experimentId`.
    experiment_id: Option<ID>,
    /// Started by this person.
    created_by: Option<String>,
    /// Created by this request.
    batch_id: Option<ID>,
}

impl RunFilter {
    /// Checks the filter.
    ///
    /// # Errors
    /// VALIDATION_ERROR for texts that nothing can equal.
    pub(super) fn check(self, limits: &Limits) -> Result<filter::RunFilter> {
        let mut checker = Checker::new("filter", limits.mistakes_max);
        let short = Length::Chars(limits.name_max_chars);
        filter_text(&mut checker, "experimentId", self.experiment_id.as_ref().map(|id| id.as_str()), short);
        filter_text(&mut checker, "createdBy", self.created_by.as_deref(), short);
        checker.finish()?;
        Ok(filter::RunFilter {
            statuses: self.status.map(|list| list.into_iter().map(Into::into).collect()),
            definition_id: self.definition_id.as_ref().map(id_or_nothing),
            experiment_id: self.experiment_id.map(String::from),
            created_by: self.created_by,
            batch_id: self.batch_id.as_ref().map(id_or_nothing),
            visible_to: None,
        })
    }
}

/// A text that is no id is the id of nothing, and so is the nil UUID.
pub(super) fn id_or_nothing(id: &ID) -> Uuid {
    id.parse().unwrap_or_else(|_| Uuid::nil())
}

/// Which jobs: all fields that are given must hold.
#[derive(InputObject, Debug, Default)]
pub(super) struct JobFilter {
    /// Of one of these types: `probe:scenario`, `analyze:basic`, `analyze:deep`; none for an empty list.
    #[graphql(name = "type")]
    kinds: Option<Vec<String>>,
    /// In one of these statuses; none for an empty list.
    status: Option<Vec<TaskStatus>>,
    /// Of this model.
    model_id: Option<String>,
    /// Failed with this code, such as `network`.
    error_code: Option<String>,
}

impl JobFilter {
    /// Checks the filter.
    ///
    /// # Errors
    /// VALIDATION_ERROR for types that do not exist and texts that nothing can equal.
    pub(super) fn check(self, limits: &Limits) -> Result<filter::JobFilter> {
        let mut checker = Checker::new("filter", limits.mistakes_max);
        let kinds = self.kinds.map(|types| checker.within("type", |c| filter_kinds(c, &types)));
        filter_text(&mut checker, "modelId", self.model_id.as_deref(), Length::Bytes(MODEL_ID_MAX_BYTES));
        filter_text(
            &mut checker,
            "errorCode",
            self.error_code.as_deref(),
            Length::Chars(limits.name_max_chars),
        );
        checker.finish()?;
        Ok(filter::JobFilter {
            kinds,
            states: self.status.map(|list| list.into_iter().map(state).collect()),
            model: self.model_id,
            error_code: self.error_code,
        })
    }
}

/// Checks an argument `modelId` that narrows a list.
///
/// # Errors
/// VALIDATION_ERROR for a text that no model can have.
pub(super) fn check_model_argument(model: Option<&str>, limits: &Limits) -> Result<()> {
    let mut checker = Checker::new("", limits.mistakes_max);
    filter_text(&mut checker, "modelId", model, Length::Bytes(MODEL_ID_MAX_BYTES));
    Ok(checker.finish()?)
}

fn state(status: TaskStatus) -> JobState {
    match status {
        TaskStatus::Pending => JobState::Pending,
        TaskStatus::Running => JobState::Active,
        TaskStatus::Completed => JobState::Completed,
        TaskStatus::Failed => JobState::Failed,
        TaskStatus::Cancelled => JobState::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Numbers;

    #[test]
    fn each_status_is_that_of_its_state() {
        for &known in JobState::ALL {
            assert_eq!(state(known.status().into()), known);
        }
    }

    #[test]
    fn every_mistake_in_a_filter_is_named() {
        let filter = JobFilter {
            kinds: Some(vec!["probe".into(), "analyze:deep".into()]),
            model_id: Some("a\0".into()),
            error_code: Some(String::new()),
            status: None,
        };
        let error = filter.check(&Numbers::default().limits()).unwrap_err();
        let named: Vec<_> = error.extensions()["errors"].as_array().unwrap().clone();
        let named: Vec<_> = named.iter().map(|e| e["field"].as_str().unwrap()).collect();
        assert_eq!(named, ["filter.type[0]", "filter.modelId", "filter.errorCode"]);
    }

    #[test]
    fn what_is_no_id_is_the_id_of_nothing() {
        let filter = RunFilter { definition_id: Some("x".into()), ..RunFilter::default() };
        let filter = filter.check(&Numbers::default().limits()).unwrap();
        assert_eq!(filter.definition_id, Some(Uuid::nil()));
    }
}
