//! What takes too long.

use async_graphql::{Enum, ID, InputObject, SimpleObject};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::request::filter_kinds;
use crate::domain::{Checker, Limits, staleness};
use crate::service::Result;

/// What a job takes its time with.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StalenessStage {
    /// It waits for its first attempt: for a slot, a limit, or others that come first.
    Waiting,
    /// It waits for another attempt.
    WaitingForRetry,
    /// A node works on it.
    InProcess,
}

/// How near a job is to the threshold of its stage, or a run to its own.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StalenessHealth {
    /// Beyond the warning percentage, 80 unless the installation says otherwise.
    Warning,
    /// At the threshold or beyond.
    Stale,
}

impl From<staleness::Health> for StalenessHealth {
    fn from(health: staleness::Health) -> Self {
        match health {
            staleness::Health::Stale => Self::Stale,
            // What is ok is in no list.
            staleness::Health::Warning | staleness::Health::Ok => Self::Warning,
        }
    }
}

/// A job that takes long. What is paused is never stale: a pause starts the clock anew.
#[derive(SimpleObject, Clone)]
#[graphql(name = "StaleJob")]
pub(super) struct StaleJob {
    /// The job: ask `job(id)` for the rest.
    job_id: ID,
    /// Its run.
    run_id: ID,
    /// What it does: `probe:scenario`, `analyze:basic` or `analyze:deep`.
    #[graphql(name = "type")]
    kind: &'static str,
    /// Of a probe: the model.
    model_id: Option<String>,
    /// What takes its time.
    stage: StalenessStage,
    /// When its clock began.
    since: DateTime<Utc>,
    /// How long ago that was, in seconds.
    age_seconds: f64,
    /// From here on it is stale, in seconds: the definition's `lifecycle`, or else the installation's value.
    threshold_seconds: f64,
    /// The age in percent of the threshold.
    percent: f64,
    /// How near it is.
    health: StalenessHealth,
    /// What is done at the threshold: REPORT, REQUEUE or DLQ.
    action: super::enums::StalenessAction,
}

impl From<staleness::StaleJob> for StaleJob {
    fn from(job: staleness::StaleJob) -> Self {
        use staleness::{Action, Stage};
        Self {
            job_id: job.job_id.into(),
            run_id: job.run_id.into(),
            kind: job.kind.as_str(),
            stage: match job.stage {
                Stage::Waiting => StalenessStage::Waiting,
                Stage::WaitingForRetry => StalenessStage::WaitingForRetry,
                // Runs are no jobs.
                Stage::InProcess | Stage::Run => StalenessStage::InProcess,
            },
            since: job.since,
            age_seconds: job.age_ms as f64 / 1_000.0,
            threshold_seconds: job.threshold_ms as f64 / 1_000.0,
            percent: job.percent(),
            health: job.health.into(),
            action: match job.action {
                Action::Report | Action::Fail => super::enums::StalenessAction::Report,
                Action::Requeue => super::enums::StalenessAction::Requeue,
                Action::Dlq => super::enums::StalenessAction::Dlq,
            },
            model_id: job.model,
        }
    }
}

/// What is done about a run that is stale.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunStalenessAction {
    /// It is reported, and nothing else.
    Report,
    /// It fails: what waits of it is cancelled. Only where its definition says `autoFailOnTimeout`.
    Fail,
}

/// That a run takes long. A pause starts the clock anew.
#[derive(SimpleObject, Clone)]
pub(super) struct RunStaleness {
    /// How near it is to its threshold.
    health: StalenessHealth,
    /// When its clock began: its start, or the end of the last pause.
    since: DateTime<Utc>,
    /// How long ago that was, in seconds.
    age_seconds: f64,
    /// From here on it is stale, in seconds: the definition's `lifecycle.maxDurationMinutes`, or else the installation's
    /// value.
    threshold_seconds: f64,
    /// The age in percent of the threshold.
    percent: f64,
    /// What is done at the threshold.
    action: RunStalenessAction,
}

impl From<staleness::StaleRun> for RunStaleness {
    fn from(run: staleness::StaleRun) -> Self {
        use staleness::Action;
        Self {
            health: run.health.into(),
            since: run.since,
            age_seconds: run.age_ms as f64 / 1_000.0,
            threshold_seconds: run.threshold_ms as f64 / 1_000.0,
            percent: run.percent(),
            action: match run.action {
                Action::Fail => RunStalenessAction::Fail,
                // The other two are for jobs.
                Action::Report | Action::Requeue | Action::Dlq => RunStalenessAction::Report,
            },
        }
    }
}

/// Which jobs that take long: all fields that are given must hold.
#[derive(InputObject, Debug, Default)]
pub(super) struct StalenessFilter {
    /// Of this run.
    run_id: Option<ID>,
    /// Of one of these types: `probe:scenario`, `analyze:basic`, `analyze:deep`; none for an empty list.
    #[graphql(name = "type")]
    kinds: Option<Vec<String>>,
    /// In this stage.
    stage: Option<StalenessStage>,
    /// Only warned about, or only stale.
    health: Option<StalenessHealth>,
}

impl StalenessFilter {
    /// Checks the filter.
    ///
    /// # Errors
    /// VALIDATION_ERROR for types that do not exist.
    pub(super) fn check(self, limits: &Limits) -> Result<staleness::StalenessFilter> {
        let mut checker = Checker::new("filter", limits.mistakes_max);
        let kinds = self.kinds.map(|types| checker.within("type", |c| filter_kinds(c, &types)));
        checker.finish()?;
        Ok(staleness::StalenessFilter {
            // A text that is no id is the id of nothing.
            run_id: self.run_id.map(|id| id.parse().unwrap_or_else(|_| Uuid::nil())),
            kinds,
            stage: self.stage.map(|stage| match stage {
                StalenessStage::Waiting => staleness::Stage::Waiting,
                StalenessStage::WaitingForRetry => staleness::Stage::WaitingForRetry,
                StalenessStage::InProcess => staleness::Stage::InProcess,
            }),
            health: self.health.map(|health| match health {
                StalenessHealth::Warning => staleness::Health::Warning,
                StalenessHealth::Stale => staleness::Health::Stale,
            }),
        })
    }
}
