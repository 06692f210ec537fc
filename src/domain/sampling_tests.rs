use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::*;

/// The numbers come from two other implementations that agree: ChaCha20 written out in Python, and the Python
/// package `cryptography`, where
/// `ChaCha20(seed.to_bytes(8, "little") + bytes(24), bytes(8) + sha256(key.encode()).digest()[:8])` encrypts
/// eight zero bytes, read as a little-endian integer.
const GOLDEN: [(u32, &str, u64); 5] = [
    (0, "", 0xcab2_cc73_1d7d_d381),
    (0, "a", 0x56a5_176a_dd45_c3e2),
    (42, "a", 0x3030_2d55_b693_ff65),
    (42, "country=France;tone=formal", 0xeb47_a719_3cf6_77d8),
    (2_147_483_647, "größe=5 %25", 0x011d_2528_f25e_5e01),
];

#[test]
fn ranks_are_those_of_other_implementations() {
    for (seed, key, expected) in GOLDEN {
        assert_eq!(rank(seed, key), expected, "seed {seed}, key {key:?}");
    }
}

#[test]
fn a_sample_is_that_of_other_implementations() {
    let keys: Vec<String> = (0..20).map(|i| format!("scenario-{i}")).collect();
    assert_eq!(sample(&keys, 25, 7), [19, 18, 14, 4, 7]);
}

#[test]
fn sizes_round_up_and_are_never_zero_of_something() {
    let table =
        [(0, 50, 0), (5, 0, 1), (1, 1, 1), (10, 1, 1), (100, 1, 1), (101, 1, 2), (99, 50, 50), (7, 100, 7)];
    for (n, percentage, expected) in table {
        assert_eq!(sample_size(n, percentage), expected, "{percentage} % of {n}");
    }
    assert_eq!(sample_size(usize::MAX, 100), usize::MAX);
    assert_eq!(sample_size(5, 200), 5);
}

#[test]
fn drawn_seeds_are_such_as_the_contract_allows_and_differ() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let seeds: BTreeSet<u32> = (0..100).map(|_| draw_seed(&mut rng)).collect();
    assert!(seeds.iter().all(|&seed| seed <= SEED_MAX));
    assert!(seeds.len() > 90);
}

/// Prints how long 100,000 keys take: `cargo test sampling -- --nocapture`.
#[test]
fn a_hundred_thousand_keys_are_all_taken_once() {
    let keys: Vec<String> = (0..100_000).map(|i| format!("country={i};tone=formal")).collect();
    let start = Instant::now();
    let all = sample(&keys, 100, 42);
    println!("sampled {} keys in {:?}", keys.len(), start.elapsed());
    let distinct: BTreeSet<usize> = all.iter().copied().collect();
    assert_eq!(distinct.len(), keys.len());
}

fn chosen(keys: &[String], percentage: u32, seed: u32) -> BTreeSet<String> {
    sample(keys, percentage, seed).into_iter().map(|i| keys[i].clone()).collect()
}

prop_compose! {
    fn keys()(set in prop::collection::btree_set(".{1,12}", 1..80)) -> Vec<String> { set.into_iter().collect() }
}

proptest! {
    #[test]
    fn the_order_of_scenarios_does_not_matter(
        (keys, shuffled) in keys().prop_flat_map(|k| (Just(k.clone()), Just(k).prop_shuffle())),
        percentage in 1_u32..=100, seed in 0..=SEED_MAX,
    ) {
        prop_assert_eq!(chosen(&keys, percentage, seed), chosen(&shuffled, percentage, seed));
    }

    #[test]
    fn a_smaller_sample_lies_inside_a_larger_one(
        keys in keys(), a in 1_u32..=100, b in 1_u32..=100, seed in 0..=SEED_MAX,
    ) {
        prop_assert!(chosen(&keys, a.min(b), seed).is_subset(&chosen(&keys, a.max(b), seed)));
    }

    #[test]
    fn a_scenario_that_is_added_displaces_at_most_one_other(
        mut keys in keys(), percentage in 1_u32..=100, seed in 0..=SEED_MAX,
    ) {
        let added = keys.pop().expect("there is at least one");
        let before = chosen(&keys, percentage, seed);
        keys.push(added);
        let after = chosen(&keys, percentage, seed);
        prop_assert!(before.difference(&after).count() <= 1);
        prop_assert!(after.difference(&before).count() <= 2);
    }
}
