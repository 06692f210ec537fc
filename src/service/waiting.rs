//! Which of all that bears on a waiting job is the reason that it waits.

use crate::domain::ErrorCode;
use crate::domain::waiting::WaitingReason;
use crate::store::{ShutLimit, WaitingFacts};

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
    let (shut, held) = match facts.limit {
        Some(ShutLimit { name, hold: Some(hold), .. }) => (None, Some((name, hold))),
        limit => (limit, None),
    };
    if let Some((provider, hold)) = held {
        return WaitingReason::ProviderHeld { provider, hold };
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
    if let Some(limit) = shut {
        return limited(limit);
    }
    if let Some(room) = facts.budget.filter(|room| room.left < room.needed) {
        return WaitingReason::Budget(room);
    }
    if let Some(hold) = facts.spend {
        return WaitingReason::SpendLimit(hold);
    }
    if !facts.has_node || !facts.is_served {
        return WaitingReason::NoNode { kind: facts.kind, model: facts.model.filter(|_| facts.has_node) };
    }
    match facts.ahead.unsigned_abs() {
        0 => WaitingReason::Next,
        jobs => WaitingReason::Behind { jobs, or_more: facts.ahead_is_capped },
    }
}

fn limited(limit: ShutLimit) -> WaitingReason {
    let what = if limit.name.contains('/') { "model" } else { "provider" };
    let (name, ceiling) =
        (format!("{what} {}", limit.name), limit.ceiling.and_then(|n| u32::try_from(n).ok()));
    let counted = match limit.counted.as_str() {
        "requests" => "requests",
        "tokens" => "tokens",
        _ => return WaitingReason::ConcurrencyLimit { name, limit: ceiling, until: limit.opens_at },
    };
    WaitingReason::RateLimit { name, counted, per_minute: ceiling.unwrap_or_default(), at: limit.opens_at }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::JobKind;
    use crate::domain::crash::LaneHold;
    use crate::domain::rate_limit::ProviderHold;
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
            limit: None,
            error_code: None,
            failures: 0,
            max_concurrency: None,
            run_active: 0,
            budget: None,
            spend: None,
            has_node: true,
            is_served: true,
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
    fn a_limit_says_what_it_counts_and_a_hold_comes_before_a_time() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let shut = |name: &str, counted: &str, ceiling| ShutLimit {
            name: name.to_owned(),
            counted: counted.to_owned(),
            ceiling,
            opens_at: Some(at),
            hold: None,
        };
        let told =
            |limit: ShutLimit, not_before| reason(WaitingFacts { limit: Some(limit), not_before, ..free() });
        assert_eq!(
            told(shut("openai", "requests", Some(60)), None),
            WaitingReason::RateLimit {
                name: "provider openai".to_owned(),
                counted: "requests",
                per_minute: 60,
                at: Some(at)
            }
        );
        assert_eq!(
            told(shut("openai/x", "jobs", None), None),
            WaitingReason::ConcurrencyLimit {
                name: "model openai/x".to_owned(),
                limit: None,
                until: Some(at)
            }
        );
        assert_eq!(told(shut("openai", "jobs", None), Some(at)), WaitingReason::NotBefore { at });
        let hold = ProviderHold { since: at, code: "auth".to_owned(), reason: "no".to_owned() };
        let held = ShutLimit { hold: Some(hold.clone()), ..shut("openai", "jobs", None) };
        assert_eq!(told(held, Some(at)), WaitingReason::ProviderHeld { provider: "openai".to_owned(), hold });
    }

    #[test]
    fn a_provider_that_no_worker_can_call_is_named_where_there_are_workers() {
        let unserved =
            WaitingFacts { model: Some("openai/gpt".to_owned()), is_served: false, ahead: 9, ..free() };
        assert_eq!(
            reason(unserved.clone()),
            WaitingReason::NoNode { kind: JobKind::ProbeScenario, model: Some("openai/gpt".to_owned()) }
        );
        let alone = WaitingFacts { has_node: false, ..unserved };
        assert_eq!(reason(alone), WaitingReason::NoNode { kind: JobKind::ProbeScenario, model: None });
    }
}
