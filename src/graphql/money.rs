//! What things cost.

use async_graphql::SimpleObject;

use rust_decimal::Decimal;

use super::enums::GuardAction;
use super::scalars::Money;
use crate::domain::prices::PriceEntry;
use crate::domain::{guard, view};

/// What some models cost, in US dollars per million tokens.
#[derive(SimpleObject)]
pub(super) struct ModelPrice {
    /// An exact model id, or the beginning of ids and a `*`. An exact one comes first, then the longest beginning.
    pattern: String,
    /// Of what the model reads.
    input_per_million: Money,
    /// Of what it writes.
    output_per_million: Money,
    /// Of what it thinks; null: the same as what it writes.
    reasoning_per_million: Option<Money>,
    /// Of what is read from the provider's cache; null: unknown, and then so is the cost of a call that does.
    cache_read_per_million: Option<Money>,
    /// Of what is written to the provider's cache; null: unknown, and then so is the cost of a call that does.
    cache_write_per_million: Option<Money>,
    /// The day on which somebody compared these numbers with the source, as `2026-01-31`.
    as_of: String,
    /// Where the numbers come from.
    source: String,
}

impl From<PriceEntry> for ModelPrice {
    fn from(entry: PriceEntry) -> Self {
        let prices = entry.prices;
        Self {
            pattern: entry.pattern,
            input_per_million: Money(prices.input),
            output_per_million: Money(prices.output),
            reasoning_per_million: prices.reasoning.map(Money),
            cache_read_per_million: prices.cache_read.map(Money),
            cache_write_per_million: prices.cache_write.map(Money),
            as_of: entry.as_of.to_string(),
            source: entry.source,
        }
    }
}

/// What a run may cost, in US dollars.
#[derive(SimpleObject)]
pub(super) struct RunBudget {
    /// All of it; `setRunBudget` changes it.
    usd: Money,
    /// What happens when no further probe fits.
    on_budget: GuardAction,
    /// What has been spent, failed attempts included.
    spent_usd: Money,
    /// What is set aside for the probes that run.
    reserved_usd: Money,
    /// What is left for further probes; below 0 when what ran cost more than was set aside for it.
    left_usd: Money,
}

impl RunBudget {
    pub(super) fn of(run: &view::Run) -> Option<Self> {
        let guard::Budget { usd, action } = run.guards.budget?;
        let (spent, reserved) = (run.cost_usd.unwrap_or(Decimal::ZERO), run.guards.reserved_usd);
        Some(Self {
            usd: Money(usd),
            on_budget: action.into(),
            spent_usd: Money(spent),
            reserved_usd: Money(reserved),
            left_usd: Money(usd - spent - reserved),
        })
    }
}

/// How often probes of a run may fail.
#[derive(SimpleObject)]
pub(super) struct FailureGuard {
    /// The part of its finished probes that may fail, 0 to below 1.
    max_failure_rate: f64,
    /// How many must have finished, since it was started or resumed, before that is looked at.
    min_finished: i32,
    /// What happens when more fail.
    on_failure_rate: GuardAction,
}

impl From<guard::FailureGuard> for FailureGuard {
    fn from(guard: guard::FailureGuard) -> Self {
        Self {
            max_failure_rate: guard.max_rate,
            min_finished: guard.min_finished,
            on_failure_rate: guard.action.into(),
        }
    }
}
