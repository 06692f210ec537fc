//! What the installation says about staleness, where a definition says nothing.

use super::example::Setting;
use super::source::Source;
use super::{Config, KindPolicy};
use crate::domain::definition::StalenessAction;
use crate::domain::staleness::{Action, Stage, Threshold};

/// How the detector works; its thresholds are among the kinds' settings and the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    /// Whether this node looks for stale jobs and runs at all.
    pub is_enabled: bool,
    /// Whether it only says what it would do.
    pub is_dry_run: bool,
    /// What is done about stale jobs unless their definition says otherwise.
    pub action: StalenessAction,
}

pub(super) fn staleness(source: &mut Source<'_>) -> Staleness {
    let action = match source.text("RUNLANE_STALENESS_ACTION").as_deref() {
        None | Some("report") => StalenessAction::Report,
        Some("requeue") => StalenessAction::Requeue,
        Some("dlq") => StalenessAction::Dlq,
        Some(other) => {
            let message = format!("{other:?} cannot be used: give report, requeue or dlq");
            source.problem("RUNLANE_STALENESS_ACTION", message);
            StalenessAction::Report
        }
    };
    Staleness {
        is_enabled: source.parsed("RUNLANE_STALENESS_ENABLED", true, "true or false"),
        is_dry_run: source.parsed("RUNLANE_STALENESS_DRY_RUN", false, "true or false"),
        action,
    }
}

/// The rows of `.env.example`.
pub(super) fn settings() -> Vec<Setting> {
    let row = |variable, default: &str, range: &str, doc| Setting {
        variable,
        default: default.to_owned(),
        range: range.to_owned(),
        doc,
    };
    vec![
        row(
            "RUNLANE_STALENESS_ENABLED",
            "true",
            "true or false",
            "Whether this node may lead the search for jobs and runs that have taken too long.",
        ),
        row(
            "RUNLANE_STALENESS_DRY_RUN",
            "false",
            "true or false",
            "Whether that search only says in the log what it would do.",
        ),
        row(
            "RUNLANE_STALENESS_ACTION",
            "report",
            "report, requeue or dlq",
            "What is done about stale jobs unless their definition's lifecycle says otherwise.",
        ),
    ]
}

impl Config {
    /// The installation's threshold of each stage.
    #[must_use]
    pub fn staleness_thresholds(&self) -> Vec<Threshold> {
        let warn_percent = self.numbers.staleness_warn_percent;
        let action = match self.staleness.action {
            StalenessAction::Report => Action::Report,
            StalenessAction::Requeue => Action::Requeue,
            StalenessAction::Dlq => Action::Dlq,
        };
        let of_kind = |policy: &KindPolicy, stage| match stage {
            Stage::Waiting => Some(policy.stale_waiting_ms),
            Stage::WaitingForRetry => Some(policy.stale_retry_ms),
            Stage::InProcess => Some(policy.stale_in_process_ms),
            Stage::Run => None,
        };
        let mut thresholds = vec![Threshold {
            stage: Stage::Run,
            kind: None,
            threshold_ms: self.numbers.stale_run_ms,
            warn_percent,
            // Runs are failed only where their definition says so.
            action: Action::Report,
        }];
        for (&kind, policy) in &self.kinds {
            for &stage in Stage::ALL {
                if let Some(threshold_ms) = of_kind(policy, stage) {
                    thresholds.push(Threshold {
                        stage,
                        kind: Some(kind),
                        threshold_ms,
                        warn_percent,
                        action,
                    });
                }
            }
        }
        thresholds
    }
}
