//! The product of dimensions put into a template: first how much it would make, then the making.

use serde_json::{Map, Value};

use super::key::{escaped_len, pair};
use super::template::Piece;
use super::{Dimension, SINGLE_SCENARIO_KEY, Scenario};

/// A template and dimensions that fit each other: every dimension has values and a placeholder, every
/// placeholder a dimension; names and values are unique.
pub(super) struct Product<'a> {
    pieces: &'a [Piece],
    dimensions: &'a [Dimension],
}

/// How much a product makes; saturating, so that no input overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Scenarios.
    pub(super) scenarios: u128,
    /// Bytes of the longest key.
    pub(super) key_max_bytes: usize,
    /// Bytes of the longest prompt.
    pub(super) prompt_max_bytes: usize,
    /// Bytes of all keys and prompts; at least that, rounded up to equally long values.
    pub(super) total_bytes: u128,
}

impl<'a> Product<'a> {
    pub(super) const fn new(pieces: &'a [Piece], dimensions: &'a [Dimension]) -> Self {
        Self { pieces, dimensions }
    }

    /// What [`Product::scenarios`] would make, without making it.
    pub(super) fn size(&self) -> Size {
        let scenarios = self.dimensions.iter().fold(1_u128, |n, d| n.saturating_mul(d.values.len() as u128));
        let mut key_bytes = if self.dimensions.is_empty() { SINGLE_SCENARIO_KEY.len() } else { 0 };
        for (i, dimension) in self.dimensions.iter().enumerate() {
            let longest = dimension.values.iter().map(|v| escaped_len(v)).max().unwrap_or(0);
            key_bytes += usize::from(i > 0) + escaped_len(&dimension.name) + 1 + longest;
        }
        let prompt_bytes = self.pieces.iter().fold(0_usize, |bytes, piece| {
            bytes.saturating_add(match piece {
                Piece::Text(text) => text.len(),
                Piece::Placeholder(name) => self.values(name).iter().map(String::len).max().unwrap_or(0),
            })
        });
        let each = (key_bytes as u128).saturating_add(prompt_bytes as u128);
        Size {
            scenarios,
            key_max_bytes: key_bytes,
            prompt_max_bytes: prompt_bytes,
            total_bytes: each.saturating_mul(scenarios),
        }
    }

    fn values(&self, name: &str) -> &'a [String] {
        self.dimensions.iter().find(|d| d.name == name).map_or(&[], |d| &d.values)
    }

    /// Every combination, the last dimension changing fastest.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        // Everything is looked up once, not once a scenario.
        let pairs: Vec<Vec<String>> =
            self.dimensions.iter().map(|d| d.values.iter().map(|v| pair(&d.name, v)).collect()).collect();
        let holes: Vec<Option<usize>> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(_) => None,
                Piece::Placeholder(name) => self.dimensions.iter().position(|d| d.name == *name),
            })
            .collect();
        let mut scenarios = Vec::new();
        let mut choice = vec![0_usize; self.dimensions.len()];
        loop {
            scenarios.push(self.scenario(&choice, &pairs, &holes));
            // Counts up like an odometer.
            let Some(turn) =
                (0..choice.len()).rev().find(|&i| choice[i] + 1 < self.dimensions[i].values.len())
            else {
                return scenarios;
            };
            choice[turn] += 1;
            choice[turn + 1..].fill(0);
        }
    }

    fn scenario(&self, choice: &[usize], pairs: &[Vec<String>], holes: &[Option<usize>]) -> Scenario {
        let value = |i: usize| self.dimensions[i].values[choice[i]].as_str();
        let key = if choice.is_empty() {
            SINGLE_SCENARIO_KEY.to_owned()
        } else {
            choice.iter().zip(pairs).map(|(&c, pairs)| pairs[c].as_str()).collect::<Vec<_>>().join(";")
        };
        let prompt = self
            .pieces
            .iter()
            .zip(holes)
            .map(|(piece, hole)| match (piece, hole) {
                (_, Some(i)) => value(*i),
                (Piece::Text(text), None) => text,
                (Piece::Placeholder(_), None) => unreachable!("every placeholder has a dimension"),
            })
            .collect();
        let dimensions = self
            .dimensions
            .iter()
            .enumerate()
            .map(|(i, d)| (d.name.clone(), Value::String(value(i).to_owned())))
            .collect::<Map<_, _>>();
        Scenario { key, prompt, dimensions: Value::Object(dimensions) }
    }
}
