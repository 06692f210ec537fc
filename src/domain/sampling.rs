//! `chacha-rank/v1`: which scenarios of a definition a run takes.
//!
//! Every key gets a rank that depends on nothing but the seed and the key itself; the sample is the keys of
//! the lowest ranks. So the order of the scenarios does not matter, a smaller sample lies inside a larger one
//! of the same seed, and a scenario that is added displaces at most one other.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// The name of the algorithm, kept with every run.
pub const ALGORITHM: &str = "chacha-rank/v1";

/// The largest seed: 2³¹−1, what GraphQL's `Int` holds.
pub const SEED_MAX: u32 = i32::MAX as u32;

/// A seed for a run that names none.
#[must_use]
pub fn draw_seed(rng: &mut impl Rng) -> u32 {
    rng.random_range(0..=SEED_MAX)
}

/// The rank of `key`: the first u64 of ChaCha20 whose key is `seed` as 8 bytes little-endian and 24 zero
/// bytes, and whose stream is the first 8 bytes, little-endian, of SHA-256(`key`).
#[must_use]
pub fn rank(seed: u32, key: &str) -> u64 {
    let mut seed_bytes = [0_u8; 32];
    seed_bytes[..8].copy_from_slice(&u64::from(seed).to_le_bytes());
    let digest = Sha256::digest(key.as_bytes());
    let mut stream = [0_u8; 8];
    stream.copy_from_slice(&digest[..8]);
    let mut rng = ChaCha20Rng::from_seed(seed_bytes);
    rng.set_stream(u64::from_le_bytes(stream));
    rng.next_u64()
}

/// How many of `n` scenarios are `percentage` (1 to 100) of them: rounded up, at least 1; 0 of 0.
#[must_use]
pub const fn sample_size(n: usize, percentage: u32) -> usize {
    let rounded_up = (n as u128 * percentage as u128).div_ceil(100);
    let least = if rounded_up == 0 { 1 } else { rounded_up };
    if least < n as u128 { least as usize } else { n }
}

/// The sample: indexes into `keys`, which must be unique, in the order of their ranks.
///
/// 100,000 keys take 0.1 to 0.2 s of pure computation in an optimised build: keep it off threads that serve
/// requests.
#[must_use]
pub fn sample<K: AsRef<str>>(keys: &[K], percentage: u32, seed: u32) -> Vec<usize> {
    let mut ranked: Vec<(u64, usize)> =
        keys.iter().enumerate().map(|(index, key)| (rank(seed, key.as_ref()), index)).collect();
    ranked.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| keys[a.1].as_ref().cmp(keys[b.1].as_ref())));
    ranked.truncate(sample_size(keys.len(), percentage));
    ranked.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
