//! What may be spent in a period, and by whom.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::text_enum::text_enum;

text_enum! {
    /// Whose spending a limit is on.
    SpendScope {
        /// Everybody's together.
        Installation = "INSTALLATION",
        /// That of one group.
        Group = "GROUP",
        /// That of one user.
        User = "USER",
    }
}

text_enum! {
    /// How long a limit lasts; UTC.
    SpendPeriod {
        /// A calendar day.
        Day = "DAY",
        /// A calendar month.
        Month = "MONTH",
    }
}

/// Providers that nobody is billed for: what they do needs no price to stay within a limit.
pub const FREE_PROVIDERS: [&str; 2] = ["mock", "ollama"];

/// Whose spending, in which period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose spending.
    pub scope: SpendScope,
    /// The group's or the user's name; empty for the installation.
    pub key: String,
    /// The period.
    pub period: SpendPeriod,
}

impl Account {
    /// `the installation`, `the group x` or `the user x`.
    #[must_use]
    pub fn owner(&self) -> String {
        match self.scope {
            SpendScope::Installation => "the installation".to_owned(),
            SpendScope::Group => format!("the group {}", self.key),
            SpendScope::User => format!("the user {}", self.key),
        }
    }
}

/// What was spent of an account in the period that it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Whose.
    pub account: Account,
    /// The limit, if there is one.
    pub limit_usd: Option<Decimal>,
    /// US dollars, failed attempts included.
    pub spent_usd: Decimal,
    /// US dollars that are set aside for what runs.
    pub reserved_usd: Decimal,
    /// When the period began.
    pub from: DateTime<Utc>,
    /// When it ends.
    pub until: DateTime<Utc>,
}

impl Spend {
    /// What is left of the limit.
    #[must_use]
    pub fn left_usd(&self) -> Option<Decimal> {
        Some(self.limit_usd? - self.spent_usd - self.reserved_usd)
    }
}

/// A limit that keeps jobs from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendHold {
    /// Whose spending it is on.
    pub account: Account,
    /// The limit, in US dollars.
    pub limit_usd: Decimal,
    /// What has been spent of it.
    pub spent_usd: Decimal,
    /// What is set aside for what runs.
    pub reserved_usd: Decimal,
    /// When the next period begins.
    pub until: DateTime<Utc>,
}

impl Spend {
    /// As a reason not to start anything; `None` without a limit.
    #[must_use]
    pub fn hold(self) -> Option<SpendHold> {
        Some(SpendHold {
            account: self.account,
            limit_usd: self.limit_usd?,
            spent_usd: self.spent_usd,
            reserved_usd: self.reserved_usd,
            until: self.until,
        })
    }
}

impl std::fmt::Display for SpendHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |usd: Decimal| usd.round_dp(6).normalize();
        let period = match self.account.period {
            SpendPeriod::Day => "a day",
            SpendPeriod::Month => "a month",
        };
        write!(
            f,
            "the spend limit of ${} {period} for {} is reached (${} spent, ${} set aside for what runs)",
            shown(self.limit_usd),
            self.account.owner(),
            shown(self.spent_usd),
            shown(self.reserved_usd)
        )
    }
}

/// Which roles may start runs with a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRoles {
    /// What stands before the `/` of a model id.
    pub provider: String,
    /// The roles; `None`: all that may start runs.
    pub roles: Option<Vec<super::Role>>,
}
