//! What the orchestrator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

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

/// Counters of one node. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    claimed: Family<KindLabel, Counter>,
    ended: Family<OutcomeLabel, Counter>,
    late: Counter,
    renewals_failed: Counter,
    leases_endangered: Counter,
    leases_lost: Counter,
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
