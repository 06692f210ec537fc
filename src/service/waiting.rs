//! Which of all that bears on a waiting job is the reason that it waits.

use crate::domain::waiting::WaitingReason;
use crate::domain::{ErrorCode, ModelId};
use crate::store::WaitingFacts;

/// The first that holds, in the order of [`WaitingReason`].
pub(super) fn reason(facts: WaitingFacts) -> WaitingReason {
    if let Some(pause) = facts.run_pause {
        return WaitingReason::RunPaused { since: pause.since, halt: pause.halt };
    }
    if let Some(pause) = facts.queue_pause {
        return WaitingReason::QueuePaused { by: pause.by, reason: pause.reason };
    }
    if let Some(hold) = facts.hold {
        return WaitingReason::LaneHeld(hold);
    }
    if let Some(at) = facts.not_before {
        let failures = u32::from(facts.failures.unsigned_abs());
        return match facts.error_code.as_deref() {
            Some(code) if code == ErrorCode::RateLimit.as_str() => WaitingReason::ThrottledUntil { at },
            None if failures == 0 => WaitingReason::NotBefore { at },
            _ => WaitingReason::RetryAt { at, failures },
        };
    }
    if let Some(limit) = facts.max_concurrency.map(i32::unsigned_abs)
        && facts.run_active >= i64::from(limit)
    {
        return WaitingReason::ConcurrencyLimit {
            name: "the run".to_owned(),
            limit: Some(limit),
            until: None,
        };
    }
    if let Some(room) = facts.budget.filter(|room| room.left < room.needed) {
        return WaitingReason::Budget(room);
    }
    if let Some(hold) = facts.spend {
        return WaitingReason::SpendLimit(hold);
    }
    let unserved = facts.model.filter(|m| m.parse::<ModelId>().is_ok_and(|m| !m.is_served()));
    if unserved.is_some() || !facts.has_node {
        return WaitingReason::NoNode { kind: facts.kind, model: unserved };
    }
    match facts.ahead.unsigned_abs() {
        0 => WaitingReason::Next,
        jobs => WaitingReason::Behind { jobs, or_more: facts.ahead_is_capped },
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::JobKind;
    use crate::domain::crash::LaneHold;
    use crate::store::{QueuePause, RunPause};

    fn free() -> WaitingFacts {
        WaitingFacts {
            job_id: 1,
            run_id: Uuid::nil(),
            kind: JobKind::ProbeScenario,
            model: Some("mock/echo".to_owned()),
            run_pause: None,
            queue_pause: None,
            hold: None,
            not_before: None,
            error_code: None,
            failures: 0,
            max_concurrency: None,
            run_active: 0,
            budget: None,
            spend: None,
            has_node: true,
            ahead: 0,
            ahead_is_capped: false,
        }
    }

    #[test]
    fn the_first_reason_that_holds_is_told() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut facts = free();
        assert_eq!(reason(facts.clone()), WaitingReason::Next);
        facts.ahead = 3;
        assert_eq!(reason(facts.clone()), WaitingReason::Behind { jobs: 3, or_more: false });
        facts.has_node = false;
        assert_eq!(
            reason(facts.clone()),
            WaitingReason::NoNode { kind: JobKind::ProbeScenario, model: None }
        );
        facts.max_concurrency = Some(2);
        assert!(matches!(reason(facts.clone()), WaitingReason::NoNode { .. }), "one slot is free");
        facts.run_active = 2;
        assert!(matches!(
            reason(facts.clone()),
            WaitingReason::ConcurrencyLimit { limit: Some(2), until: None, .. }
        ));
        facts.not_before = Some(at);
        assert_eq!(reason(facts.clone()), WaitingReason::NotBefore { at });
        facts.failures = 1;
        assert_eq!(reason(facts.clone()), WaitingReason::RetryAt { at, failures: 1 });
        facts.error_code = Some("rate_limit".to_owned());
        assert_eq!(reason(facts.clone()), WaitingReason::ThrottledUntil { at });
        facts.hold = Some(LaneHold { since: at, reason: "crashes".to_owned() });
        assert!(matches!(reason(facts.clone()), WaitingReason::LaneHeld(_)));
        facts.queue_pause = Some(QueuePause { by: Some("ada".to_owned()), reason: None });
        assert!(matches!(reason(facts.clone()), WaitingReason::QueuePaused { .. }));
        facts.run_pause = Some(RunPause { since: at, halt: None });
        assert_eq!(reason(facts), WaitingReason::RunPaused { since: at, halt: None });
    }

    #[test]
    fn a_provider_that_no_worker_can_call_is_named() {
        let facts = WaitingFacts { model: Some("openai/gpt".to_owned()), ahead: 9, ..free() };
        assert_eq!(
            reason(facts),
            WaitingReason::NoNode { kind: JobKind::ProbeScenario, model: Some("openai/gpt".to_owned()) }
        );
    }
}
