//! Why a job waits, in words for people.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;

use super::crash::LaneHold;
use super::job::JobKind;
use super::provider::{self, Access};
use super::rate_limit::ProviderHold;
use super::spend::SpendHold;
use super::staleness::StaleNote;
use super::validation::shorten;

/// The one reason that keeps a pending job from starting now; the first that holds, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingReason {
    /// Its run is paused.
    RunPaused {
        /// Since when.
        since: DateTime<Utc>,
        /// Why, where its own guard paused it.
        halt: Option<String>,
    },
    /// An admin paused everything.
    QueuePaused {
        /// Who.
        by: Option<String>,
        /// Why, in their words.
        reason: Option<String>,
    },
    /// Too many jobs of its run and model crash.
    LaneHeld(LaneHold),
    /// It waits for its next attempt.
    RetryAt {
        /// The earliest start.
        at: DateTime<Utc>,
        /// Counted failures so far; 0 after a loss.
        failures: u32,
    },
    /// Nothing went wrong: it was put back to start later, as by a redrive that spreads its jobs.
    NotBefore {
        /// The earliest start.
        at: DateTime<Utc>,
    },
    /// The provider asked to slow down.
    ThrottledUntil {
        /// The earliest start.
        at: DateTime<Utc>,
    },
    /// Its provider refused everybody, and nothing is asked of it until somebody has looked.
    ProviderHeld {
        /// The provider.
        provider: String,
        /// What it said.
        hold: ProviderHold,
    },
    /// A minute's allowance is used up.
    RateLimit {
        /// What the limit is on, such as `model openai/gpt-5`.
        name: String,
        /// What it counts: `requests` or `tokens`.
        counted: &'static str,
        /// How many of them in 60 seconds.
        per_minute: u32,
        /// When there is room for another job.
        at: Option<DateTime<Utc>>,
    },
    /// A limit is reached or held.
    ConcurrencyLimit {
        /// What the limit is on, such as `run` or `provider mock`.
        name: String,
        /// How many may run at once; `None` while the limit is held altogether.
        limit: Option<u32>,
        /// Until when it is held, if that is known.
        until: Option<DateTime<Utc>>,
    },
    /// What runs has to end first, or the budget to be raised.
    Budget(BudgetRoom),
    /// An admin limits what may be spent in a period.
    SpendLimit(SpendHold),
    /// No node that is alive runs such jobs.
    NoNode {
        /// The kind of the job.
        kind: JobKind,
        /// The model it asks for, when nodes are alive and none can call its provider.
        model: Option<String>,
    },
    /// Others come first.
    Behind {
        /// How many.
        jobs: u64,
        /// Whether there are more, which were not counted.
        or_more: bool,
    },
    /// Nothing: it starts with the next free slot.
    Next,
}

/// What is left of the budget of a run, in US dollars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRoom {
    /// All of it.
    pub usd: Decimal,
    /// What is neither spent nor set aside for what runs.
    pub left: Decimal,
    /// What would be set aside for this job.
    pub needed: Decimal,
}

/// Why a job waits, and whether it has waited for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What keeps it from starting.
    pub reason: WaitingReason,
    /// That it is near the threshold at which it counts as stale, or beyond.
    pub note: Option<StaleNote>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match self.note {
            Some(note) => write!(f, " {note}"),
            None => Ok(()),
        }
    }
}

/// What a node needs to call this model.
fn access_of(model: &str) -> Option<&'static Access> {
    let (name, _) = model.split_once('/')?;
    provider::find(name)?.access.as_ref()
}

/// Dollars as people read them.
fn shown(usd: &Decimal) -> Decimal {
    usd.round_dp(6).normalize()
}

fn time(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl fmt::Display for WaitingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunPaused { since, halt: None } => {
                write!(f, "The run has been paused since {}; it starts after resumeRun.", time(since))
            }
            Self::RunPaused { since, halt: Some(halt) } => {
                write!(
                    f,
                    "The run's own guard has paused it at {}: {halt}; it starts after resumeRun.",
                    time(since)
                )
            }
            Self::QueuePaused { by, reason } => {
                f.write_str("The whole queue is paused")?;
                if let Some(by) = by {
                    write!(f, " by {by}")?;
                }
                if let Some(reason) = reason {
                    write!(f, " ({reason})")?;
                }
                f.write_str("; it starts after resumeQueue.")
            }
            Self::LaneHeld(LaneHold { since, reason }) => {
                write!(
                    f,
                    "Its model is held in this run since {}: {reason}; it starts after releaseLane.",
                    time(since)
                )
            }
            Self::RetryAt { at, failures: 0 } => {
                write!(f, "Its last attempt was lost; it runs again at {}.", time(at))
            }
            Self::RetryAt { at, failures } => {
                let plural = if *failures == 1 { "" } else { "s" };
                write!(f, "It is tried again at {}, after {failures} counted failure{plural}.", time(at))
            }
            Self::NotBefore { at } => write!(f, "It was put back and does not start before {}.", time(at)),
            Self::ThrottledUntil { at } => {
                write!(f, "The provider asked to slow down; it is tried again at {}.", time(at))
            }
            Self::ProviderHeld { provider, hold: ProviderHold { since, code, reason } } => write!(
                f,
                "The provider {provider} is held since {} ({code}: {reason}); it starts after releaseLimit.",
                time(since)
            ),
            Self::RateLimit { name, counted, per_minute, at } => {
                write!(f, "The limit of {per_minute} {counted} a minute for {name} is reached")?;
                match at {
                    Some(at) => write!(f, "; there is room again at {}.", time(at)),
                    None => f.write_str("."),
                }
            }
            Self::ConcurrencyLimit { name, limit, until } => {
                match limit {
                    Some(limit) => write!(f, "The limit of {limit} jobs at once for {name} is reached")?,
                    None => write!(f, "The limit for {name} is held")?,
                }
                match until {
                    Some(until) => write!(f, " until {}.", time(until)),
                    None if limit.is_some() => f.write_str(" until one of them ends."),
                    None => f.write_str(" until someone releases it."),
                }
            }
            Self::Budget(BudgetRoom { usd, left, needed }) => write!(
                f,
                "It may cost ${}, and ${} of the run's budget of ${} are left; it starts when what runs turns out cheaper, or after setRunBudget.",
                shown(needed),
                shown(left),
                shown(usd)
            ),
            Self::SpendLimit(hold) => {
                let mut said = hold.to_string();
                said.replace_range(..1, "T");
                write!(f, "{said}; it starts at {}, or when an admin raises the limit.", time(&hold.until))
            }
            Self::NoNode { kind, model: Some(model) } => {
                write!(f, "No node that can run {kind} for the model {} is alive", shorten(model))?;
                match access_of(model) {
                    Some(access) => write!(f, ": set {} in the environment of one.", access.needed()),
                    None => f.write_str("."),
                }
            }
            Self::NoNode { kind, model: None } => write!(f, "No node that can run {kind} is alive."),
            Self::Behind { jobs, or_more: true } => write!(f, "More than {jobs} jobs come first."),
            Self::Behind { jobs: 1, .. } => f.write_str("1 job comes first."),
            Self::Behind { jobs, .. } => write!(f, "{jobs} jobs come first."),
            Self::Next => f.write_str("It starts with the next free slot."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_which_and_until_when() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let limit =
            |limit, until| WaitingReason::ConcurrencyLimit { name: "provider mock".into(), limit, until };
        let cases = [
            (
                WaitingReason::RunPaused { since: at, halt: None },
                "The run has been paused since 2027-01-15T08:00:00Z; it starts after resumeRun.",
            ),
            (
                WaitingReason::RunPaused { since: at, halt: Some("the budget of $2 is used up".into()) },
                "The run's own guard has paused it at 2027-01-15T08:00:00Z: the budget of $2 is used up; it starts after resumeRun.",
            ),
            (
                WaitingReason::Budget(BudgetRoom {
                    usd: Decimal::new(200, 2),
                    left: Decimal::new(1, 2),
                    needed: Decimal::new(2_000_000_001, 11),
                }),
                "It may cost $0.02, and $0.01 of the run's budget of $2 are left; it starts when what runs turns out cheaper, or after setRunBudget.",
            ),
            (
                WaitingReason::QueuePaused { by: Some("ada".into()), reason: Some("costs".into()) },
                "The whole queue is paused by ada (costs); it starts after resumeQueue.",
            ),
            (
                WaitingReason::QueuePaused { by: None, reason: None },
                "The whole queue is paused; it starts after resumeQueue.",
            ),
            (
                WaitingReason::LaneHeld(LaneHold { since: at, reason: "5 of its jobs crash".into() }),
                "Its model is held in this run since 2027-01-15T08:00:00Z: 5 of its jobs crash; it starts after releaseLane.",
            ),
            (
                WaitingReason::RetryAt { at, failures: 2 },
                "It is tried again at 2027-01-15T08:00:00Z, after 2 counted failures.",
            ),
            (
                WaitingReason::RetryAt { at, failures: 0 },
                "Its last attempt was lost; it runs again at 2027-01-15T08:00:00Z.",
            ),
            (
                WaitingReason::NotBefore { at },
                "It was put back and does not start before 2027-01-15T08:00:00Z.",
            ),
            (
                WaitingReason::ThrottledUntil { at },
                "The provider asked to slow down; it is tried again at 2027-01-15T08:00:00Z.",
            ),
            (
                limit(Some(4), None),
                "The limit of 4 jobs at once for provider mock is reached until one of them ends.",
            ),
            (limit(None, Some(at)), "The limit for provider mock is held until 2027-01-15T08:00:00Z."),
            (limit(None, None), "The limit for provider mock is held until someone releases it."),
            (
                WaitingReason::ProviderHeld {
                    provider: "openai".into(),
                    hold: ProviderHold { since: at, code: "auth".into(), reason: "no such key".into() },
                },
                "The provider openai is held since 2027-01-15T08:00:00Z (auth: no such key); it starts after releaseLimit.",
            ),
            (
                WaitingReason::RateLimit {
                    name: "model openai/x".into(),
                    counted: "requests",
                    per_minute: 60,
                    at: Some(at),
                },
                "The limit of 60 requests a minute for model openai/x is reached; there is room again at 2027-01-15T08:00:00Z.",
            ),
            (
                WaitingReason::NoNode { kind: JobKind::ProbeScenario, model: Some("openai/x".into()) },
                "No node that can run probe:scenario for the model \"openai/x\" is alive: set OPENAI_API_KEY in the environment of one.",
            ),
            (
                WaitingReason::NoNode { kind: JobKind::AnalyzeDeep, model: None },
                "No node that can run analyze:deep is alive.",
            ),
            (WaitingReason::Behind { jobs: 1, or_more: false }, "1 job comes first."),
            (WaitingReason::Behind { jobs: 12, or_more: false }, "12 jobs come first."),
            (WaitingReason::Behind { jobs: 1_000, or_more: true }, "More than 1000 jobs come first."),
            (WaitingReason::Next, "It starts with the next free slot."),
        ];
        for (reason, text) in cases {
            assert_eq!(reason.to_string(), text);
        }
    }
}
