//! What things cost.

use async_graphql::SimpleObject;

use super::scalars::Money;
use crate::domain::prices::PriceEntry;

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
