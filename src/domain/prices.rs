//! What models cost: the price table, and which of its rows a model takes.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// US dollars per million tokens of each part of a usage. The parts are disjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Of what the model reads.
    pub input: Decimal,
    /// Of what it writes.
    pub output: Decimal,
    /// Of what it thinks; `None`: as [`Prices::output`].
    pub reasoning: Option<Decimal>,
    /// Of what is read from the provider's cache; `None`: unknown.
    pub cache_read: Option<Decimal>,
    /// Of what is written to the provider's cache; `None`: unknown.
    pub cache_write: Option<Decimal>,
}

impl Prices {
    /// The `pricing` of the worker protocol, and of a lane.
    #[must_use]
    pub fn to_protocol(&self) -> Value {
        let optional = |price: Option<Decimal>| price.map(plain);
        json!({
            "inputPerMillion": plain(self.input),
            "outputPerMillion": plain(self.output),
            "reasoningPerMillion": optional(self.reasoning),
            "cacheReadPerMillion": optional(self.cache_read),
            "cacheWritePerMillion": optional(self.cache_write),
        })
    }

    /// What so many tokens cost, in US dollars; exact.
    #[must_use]
    pub fn cost(&self, input: u64, output: u64) -> Decimal {
        (self.input * Decimal::from(input) + self.output * Decimal::from(output)) / Decimal::from(1_000_000)
    }
}

/// Without an exponent and without trailing zeros.
fn plain(amount: Decimal) -> String {
    amount.normalize().to_string()
}

/// What the probes of one model of a run cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCost {
    /// US dollars so far; none while no price is known.
    pub usd: Option<Decimal>,
    /// The prices of the run's start, as the worker protocol has them.
    pub pricing: Option<Value>,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceEntry {
    /// A model id, or the beginning of ids and a `*`.
    pub pattern: String,
    /// What they cost.
    pub prices: Prices,
    /// When somebody looked.
    pub as_of: NaiveDate,
    /// Where.
    pub source: String,
}

impl PriceEntry {
    /// How well this row fits a model: an exact id best, then the longest beginning; `None`: not at all.
    fn fits(&self, model: &str) -> Option<usize> {
        match self.pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start).then_some(start.len()),
            None => (self.pattern == model).then_some(usize::MAX),
        }
    }
}

/// All prices that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceTable {
    entries: Vec<PriceEntry>,
}

impl PriceTable {
    /// A table of these rows; each pattern stands there once.
    #[must_use]
    pub const fn new(entries: Vec<PriceEntry>) -> Self {
        Self { entries }
    }

    /// Every row, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[PriceEntry] {
        &self.entries
    }

    /// The row that a model takes; `None`: its price is unknown.
    #[must_use]
    pub fn find(&self, model: &str) -> Option<&PriceEntry> {
        let fitting = self.entries.iter().filter_map(|e| Some((e.fits(model)?, e)));
        fitting.max_by_key(|(fit, _)| *fit).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pattern: &str, input: i64) -> PriceEntry {
        let prices = Prices {
            input: Decimal::from(input),
            output: Decimal::new(25, 2),
            reasoning: None,
            cache_read: None,
            cache_write: Some(Decimal::new(1_250, 3)),
        };
        PriceEntry { pattern: pattern.to_owned(), prices, as_of: NaiveDate::MIN, source: String::new() }
    }

    #[test]
    fn an_exact_id_comes_before_the_longest_beginning() {
        let table = PriceTable::new(vec![
            entry("a/x*", 1),
            entry("a/x-mini*", 2),
            entry("a/x-mini-2", 3),
            entry("a/y", 4),
        ]);
        let input = |model: &str| table.find(model).map(|e| e.prices.input);
        assert_eq!(input("a/x-large"), Some(1.into()));
        assert_eq!(input("a/x-mini-1"), Some(2.into()));
        assert_eq!(input("a/x-mini-2"), Some(3.into()));
        assert_eq!(input("a/y"), Some(4.into()));
        assert_eq!(input("a/y-2"), None, "another model has no price");
    }

    #[test]
    fn the_protocol_gets_texts_and_nothing_for_what_is_unknown() {
        let shown = entry("a/x", 2).prices.to_protocol();
        let expected = json!({ "inputPerMillion": "2", "outputPerMillion": "0.25", "reasoningPerMillion": null,
                               "cacheReadPerMillion": null, "cacheWritePerMillion": "1.25" });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_cost_is_exact() {
        let prices = entry("a/x", 3).prices;
        assert_eq!(prices.cost(1, 2), "0.0000035".parse::<Decimal>().unwrap());
    }
}
