//! What the orchestrator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::staleness::{Health, Step};
use crate::domain::{AttemptOutcome, JobKind};

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HealthLabel {
    kind: &'static str,
    health: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    stage: &'static str,
    health: &'static str,
    action: &'static str,
}

/// Counters of one node. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    claimed: Family<KindLabel, Counter>,
    ended: Family<OutcomeLabel, Counter>,
    late: Counter,
    renewals_failed: Counter,
    leases_endangered: Counter,
    leases_lost: Counter,
    stale: Family<HealthLabel, Gauge>,
    staleness: Family<StepLabel, Counter>,
}

impl Metrics {
    /// Makes the counters visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("runlane_jobs_claimed", "Claims of jobs", self.claimed.clone());
        registry.register("runlane_attempts_ended", "Attempts that ended, by outcome", self.ended.clone());
        registry.register(
            "runlane_results_late",
            "Results that came after the claim was lost",
            self.late.clone(),
        );
        registry.register(
            "runlane_lease_renewals_failed",
            "Renewals of the lease that failed",
            self.renewals_failed.clone(),
        );
        registry.register(
            "runlane_leases_endangered",
            "Times that half of the lease went by without a renewal",
            self.leases_endangered.clone(),
        );
        registry.register(
            "runlane_leases_lost",
            "Leases that were taken, or given up because they ran out",
            self.leases_lost.clone(),
        );
        registry.register(
            "runlane_stale_jobs",
            "Jobs near their staleness threshold or beyond, counted up to RUNLANE_COUNT_MAX by the node that leads; 0 on others",
            self.stale.clone(),
        );
        registry.register(
            "runlane_staleness_acts",
            "Jobs and runs that were warned about, reported or acted upon as stale",
            self.staleness.clone(),
        );
    }

    pub(super) fn claimed(&self, kind: JobKind) {
        self.claimed.get_or_create(&KindLabel { kind: kind.as_str() }).inc();
    }

    pub(super) fn ended(&self, kind: JobKind, outcome: AttemptOutcome) {
        self.ended.get_or_create(&OutcomeLabel { kind: kind.as_str(), outcome: outcome.as_str() }).inc();
    }

    pub(super) fn late(&self) {
        self.late.inc();
    }

    /// How many jobs are near their threshold or beyond now; what is not named is none.
    pub(super) fn stale_jobs(&self, counts: &[(JobKind, Health, i64)]) {
        for &kind in JobKind::ALL {
            for health in [Health::Warning, Health::Stale] {
                let n = counts.iter().find(|c| (c.0, c.1) == (kind, health)).map_or(0, |c| c.2);
                let label = HealthLabel { kind: kind.as_str(), health: health.as_str() };
                self.stale.get_or_create(&label).set(n);
            }
        }
    }

    pub(super) fn staleness_step(&self, step: &Step, n: usize) {
        let label = StepLabel {
            stage: step.stage.as_str(),
            health: step.health.as_str(),
            action: step.action.as_str(),
        };
        self.staleness.get_or_create(&label).inc_by(n as u64);
    }

    pub(super) fn renewal_failed(&self) {
        self.renewals_failed.inc();
    }

    pub(super) fn lease_endangered(&self) {
        self.leases_endangered.inc();
    }

    pub(super) fn lease_lost(&self) {
        self.leases_lost.inc();
    }
}
