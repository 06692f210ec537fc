//! What things cost.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};

use rust_decimal::Decimal;

use super::enums::GuardAction;
use super::scalars::Money;
use crate::domain::prices::PriceEntry;
use crate::domain::{self, guard, spend, view};

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

/// Whose spending.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "spend::SpendScope")]
pub(super) enum SpendScope {
    /// Everybody's together.
    Installation,
    /// That of everybody whose token names one group.
    Group,
    /// That of one user.
    User,
}

/// How long a spend limit lasts, by the calendar of UTC.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "spend::SpendPeriod")]
pub(super) enum SpendPeriod {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// What a person may do.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::Role")]
pub(super) enum Role {
    /// Sees all, changes nothing.
    Viewer,
    /// Sees and controls its own runs.
    User,
    /// Does everything.
    Admin,
}

/// What was spent in the present day or month, in US dollars.
#[derive(SimpleObject)]
pub(super) struct Spend {
    /// Whose spending.
    scope: SpendScope,
    /// The group's or the user's name; null for the installation.
    key: Option<String>,
    /// By day or by month.
    period: SpendPeriod,
    /// When the period began.
    from: DateTime<Utc>,
    /// When it ends, and what was spent counts from 0 again.
    until: DateTime<Utc>,
    /// What has been spent, failed attempts included. What has no price is not in it.
    spent_usd: Money,
    /// What is set aside for the probes that run.
    reserved_usd: Money,
    /// What may be spent; null without a limit.
    limit_usd: Option<Money>,
    /// What is left of the limit; null without one.
    left_usd: Option<Money>,
}

impl From<spend::Spend> for Spend {
    fn from(spend: spend::Spend) -> Self {
        let left_usd = spend.left_usd().map(Money);
        Self {
            scope: spend.account.scope.into(),
            key: Some(spend.account.key).filter(|key| !key.is_empty()),
            period: spend.account.period.into(),
            from: spend.from,
            until: spend.until,
            spent_usd: Money(spend.spent_usd),
            reserved_usd: Money(spend.reserved_usd),
            limit_usd: spend.limit_usd.map(Money),
            left_usd,
        }
    }
}

/// Which roles may start runs with a provider.
#[derive(SimpleObject)]
pub(super) struct ProviderRoles {
    /// What stands before the `/` of a model id.
    provider: String,
    /// The roles; null: all that may start runs.
    roles: Option<Vec<Role>>,
}

impl From<spend::ProviderRoles> for ProviderRoles {
    fn from(entry: spend::ProviderRoles) -> Self {
        let roles = entry.roles.map(|roles| roles.into_iter().map(Role::from).collect());
        Self { provider: entry.provider, roles }
    }
}
