//! How much, how long and with which seed.

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a test is told.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The long form, with the catalogue's numbers; the short one is for every day.
    pub is_long: bool,
    /// Decides when which fault happens.
    pub seed: u64,
    stream: u64,
}

impl Plan {
    /// `CHAOS_SCALE` (short or long) and `CHAOS_SEED` (an integer; drawn when it is not set).
    pub fn from_env() -> anyhow::Result<Self> {
        let is_long = match std::env::var("CHAOS_SCALE").as_deref() {
            Err(_) | Ok("" | "short") => false,
            Ok("long") => true,
            Ok(other) => bail!("CHAOS_SCALE is {other:?}, but must be short or long"),
        };
        let seed = match std::env::var("CHAOS_SEED") {
            Ok(text) if !text.is_empty() => text.parse().context("CHAOS_SEED must be an integer from 0")?,
            // The random end of an id; short enough to be typed again.
            _ => runlane::domain::ids::new_id().as_u128() as u64 % 1_000_000,
        };
        Ok(Self { is_long, seed, stream: 0 })
    }

    /// The plan of one test: the same seed makes different faults in different tests.
    pub fn of(self, id: &str) -> Self {
        let stream = id.bytes().fold(0_u64, |sum, byte| sum * 256 + u64::from(byte));
        Self { stream, ..self }
    }

    /// The schedule of the faults.
    pub fn rng(&self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.stream);
        rng
    }

    /// `short` or `long`, as the scale is.
    pub fn pick<T>(&self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }

    /// A node's lease. The long form measures what operators get by default.
    pub fn lease_ms(&self) -> u64 {
        self.pick(1_000, 6_000)
    }

    /// How often a lease is renewed, and dead nodes are looked for: one sweep.
    pub fn renewal_ms(&self) -> u64 {
        self.pick(333, 2_000)
    }
}
