//! How long a job waits before it is tried again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential backoff with equal jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay that doubles with every failure.
    pub base: Duration,
    /// No delay is longer.
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `failures`-th counted failure (1, 2, 3 …): uniform within d/2 … d,
    /// d = min(max, base × 2^failures).
    #[must_use]
    pub fn delay(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let factor = 2_u32.checked_pow(failures).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.max);
        let half = ceiling / 2;
        half + (ceiling - half).mul_f64(rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    proptest! {
        #[test]
        fn waits_within_half_and_whole_of_the_doubling_ceiling(failures in 1_u32..200, seed: u64) {
            let backoff = Backoff { base: Duration::from_secs(5), max: Duration::from_secs(300) };
            let delay = backoff.delay(failures, &mut ChaCha8Rng::seed_from_u64(seed)).as_secs_f64();
            let ceiling = (5.0 * 2_f64.powi(failures as i32)).min(300.0);
            prop_assert!(delay >= ceiling / 2.0 && delay <= ceiling);
        }
    }
}
