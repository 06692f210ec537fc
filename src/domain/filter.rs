//! What lists are narrowed to.

use uuid::Uuid;

use super::{JobKind, JobState, RunStatus};

/// Which runs; a field that is none narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// In one of these statuses.
    pub statuses: Option<Vec<RunStatus>>,
    /// Of this definition.
    pub definition_id: Option<Uuid>,
    /// Of this experiment.
    pub experiment_id: Option<String>,
    /// Started by this subject.
    pub created_by: Option<String>,
    /// Created by this request.
    pub batch_id: Option<Uuid>,
    /// Of what remains, only what this subject started: all that it may see.
    pub visible_to: Option<String>,
}

/// Which jobs of a run; a field that is none narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Of one of these kinds.
    pub kinds: Option<Vec<JobKind>>,
    /// In one of these states; waiting jobs of a closed lane are cancelled.
    pub states: Option<Vec<JobState>>,
    /// Of this model.
    pub model: Option<String>,
    /// Failed with this code.
    pub error_code: Option<String>,
}
