//! Limits that all nodes share: on a provider, or on one of its models.

use chrono::{DateTime, Utc};

use super::model_id::ModelId;
use super::provider::PROVIDERS;

/// What a limit allows; `None` sets no ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Jobs in flight at once.
    pub in_flight: Option<i32>,
    /// Calls granted within any 60 seconds.
    pub requests_per_minute: Option<i32>,
    /// Tokens, in and out, granted within any 60 seconds, as estimated before and corrected after each job.
    pub tokens_per_minute: Option<i32>,
}

impl Ceilings {
    /// The ceilings with their names in GraphQL and in the configuration.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Option<i32>); 3] {
        [
            ("inFlight", self.in_flight),
            ("requestsPerMinute", self.requests_per_minute),
            ("tokensPerMinute", self.tokens_per_minute),
        ]
    }
}

/// A limit as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// A provider, or `provider/name`.
    pub name: String,
    /// What it allows.
    pub ceilings: Ceilings,
    /// Who set the ceilings, and when; `configuration` for what was declared.
    pub set: Option<(String, DateTime<Utc>)>,
    /// Jobs in flight now.
    pub in_flight: i64,
    /// Jobs in flight that the provider has shown to bear, since it last asked to slow down; `None` when it has not.
    pub bearable: Option<i64>,
    /// Calls granted in the last 60 seconds.
    pub requests: i64,
    /// Tokens granted in the last 60 seconds.
    pub tokens: i64,
    /// The provider asked to wait until then.
    pub held_until: Option<DateTime<Utc>>,
    /// Nothing starts until somebody has looked.
    pub hold: Option<ProviderHold>,
}

/// A provider that nothing is asked of until somebody has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderHold {
    /// Since when.
    pub since: DateTime<Utc>,
    /// `auth` or `quota_exhausted`.
    pub code: String,
    /// What the provider said.
    pub reason: String,
}

/// Why a text names nothing that can have a limit; the message follows the name of the field.
///
/// # Errors
/// What is wrong with it.
pub fn check_limit_name(name: &str) -> Result<(), String> {
    if PROVIDERS.iter().any(|p| p.name == name) {
        return Ok(());
    }
    if name.contains('/') {
        return name.parse::<ModelId>().map(drop).map_err(|error| error.to_string());
    }
    let names: Vec<&str> = PROVIDERS.iter().map(|p| p.name).collect();
    Err(format!(
        "{name:?} is neither a provider nor a model: give one of {}, or provider/name",
        names.join(", ")
    ))
}
