//! Limits on providers and models.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};

use crate::domain::rate_limit;

/// A limit on a provider or on one of its models, shared by all nodes.
#[derive(SimpleObject)]
#[graphql(name = "Limit")]
pub(super) struct RateLimit {
    /// A provider such as `openai`, or a model: `provider/name`.
    name: String,
    /// Jobs that may be in flight at once; null sets no ceiling.
    in_flight_max: Option<i32>,
    /// Calls that may be granted within any 60 seconds; null sets no ceiling.
    requests_per_minute: Option<i32>,
    /// Tokens, in and out, that may be granted within any 60 seconds; null sets no ceiling. They are estimated before a
    /// job and corrected after it.
    tokens_per_minute: Option<i32>,
    /// Who set the ceilings; `configuration` for what was declared at the start, null where nobody did.
    set_by: Option<String>,
    /// When they were set.
    set_at: Option<DateTime<Utc>>,
    /// Jobs in flight now.
    in_flight: i64,
    /// Jobs in flight that the provider has borne since it last asked to slow down: halved when it does, grown by one with
    /// each round of completions; null when it asked for nothing.
    bearable: Option<i64>,
    /// Calls granted in the last 60 seconds, to the second.
    requests: i64,
    /// Tokens granted in the last 60 seconds, to the second.
    tokens: i64,
    /// The provider asked to wait until then.
    held_until: Option<DateTime<Utc>>,
    /// Nothing more is asked of the provider until an admin says `releaseLimit`.
    hold: Option<ProviderHold>,
}

/// A provider that refused everybody.
#[derive(SimpleObject)]
pub(super) struct ProviderHold {
    /// Since when.
    since: DateTime<Utc>,
    /// `auth` when the key was refused, `quota_exhausted` when the account is empty.
    code: String,
    /// What the provider said.
    reason: String,
}

impl From<rate_limit::RateLimit> for RateLimit {
    fn from(limit: rate_limit::RateLimit) -> Self {
        let (set_by, set_at) = limit.set.unzip();
        Self {
            name: limit.name,
            in_flight_max: limit.ceilings.in_flight,
            requests_per_minute: limit.ceilings.requests_per_minute,
            tokens_per_minute: limit.ceilings.tokens_per_minute,
            set_by,
            set_at,
            in_flight: limit.in_flight,
            bearable: limit.bearable,
            requests: limit.requests,
            tokens: limit.tokens,
            held_until: limit.held_until,
            hold: limit.hold.map(|h| ProviderHold { since: h.since, code: h.code, reason: h.reason }),
        }
    }
}
