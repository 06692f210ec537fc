use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Numbers;

fn limits() -> Limits {
    Numbers::default().limits()
}

fn input() -> StartRunInput {
    StartRunInput {
        definition_id: "0198f3a0-0000-7000-8000-00000000000a".to_owned(),
        models: vec!["mock/echo".to_owned()],
        sample_percentage: 100,
        sample_seed: None,
        priority: RunPriority::Normal,
        experiment_id: None,
        name: None,
        params: None,
        max_concurrency: None,
        idempotency_key: None,
        metadata: None,
        budget_usd: None,
        on_budget: GuardAction::Pause,
        max_failure_rate: None,
        min_finished: None,
        on_failure_rate: GuardAction::Pause,
    }
}

fn checked(input: StartRunInput) -> NewRun {
    input.check(&RunParams::default(), &limits()).unwrap()
}

fn wrong(change: impl FnOnce(&mut StartRunInput)) -> Vec<String> {
    let mut input = input();
    change(&mut input);
    let checked = input.check(&RunParams::default(), &limits());
    checked.err().map_or_else(Vec::new, |e| e.iter().map(|e| e.field.clone()).collect())
}

#[test]
fn the_runs_params_win_over_the_definitions() {
    let mut input = input();
    input.params = Some(RunParams { temperature: Some(-0.0), max_tokens: Some(5), ..RunParams::default() });
    let defaults = RunParams { max_tokens: Some(9), seed: Some(3), ..RunParams::default() };
    let run = input.check(&defaults, &limits()).unwrap();
    let expected =
        RunParams { temperature: Some(0.0), max_tokens: Some(5), seed: Some(3), ..RunParams::default() };
    assert_eq!(run.params, expected);
    assert!(run.params.temperature.unwrap().is_sign_positive());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let fields = wrong(|i| {
        *i = StartRunInput {
            definition_id: "\0".to_owned(),
            models: vec!["nobody/x".to_owned()],
            sample_percentage: 0,
            sample_seed: Some(-1),
            priority: RunPriority::Low,
            experiment_id: Some(String::new()),
            name: Some("x".repeat(201)),
            params: Some(RunParams { max_turns: Some(101), ..RunParams::default() }),
            max_concurrency: Some(0),
            idempotency_key: Some("a b".to_owned()),
            metadata: Some(json!({"x": "\0"})),
            ..input()
        }
    });
    let names = [
        "models",
        "maxConcurrency",
        "samplePercentage",
        "sampleSeed",
        "experimentId",
        "name",
        "params.maxTurns",
        "idempotencyKey",
        "metadata",
    ];
    assert_eq!(fields, names.map(|name| format!("input.{name}")));
}

#[test]
fn ends_of_the_ranges_are_inside() {
    assert_eq!(wrong(|i| i.sample_percentage = 1), [""; 0]);
    assert_eq!(wrong(|i| i.sample_percentage = 101), ["input.samplePercentage"]);
    assert_eq!(wrong(|i| i.sample_seed = Some(0)), [""; 0]);
    assert_eq!(wrong(|i| i.sample_seed = Some(i32::MAX)), [""; 0]);
    assert_eq!(wrong(|i| i.max_concurrency = Some(100_000)), [""; 0]);
    assert_eq!(wrong(|i| i.max_concurrency = Some(100_001)), ["input.maxConcurrency"]);
    assert_eq!(wrong(|i| i.name = Some("ä".repeat(200))), [""; 0]);
    assert_eq!(wrong(|i| i.idempotency_key = Some("k".repeat(200))), [""; 0]);
    for key in ["", "ä", "a\n", &"k".repeat(201)] {
        assert_eq!(wrong(|i| i.idempotency_key = Some(key.to_owned())), ["input.idempotencyKey"], "{key:?}");
    }
}

#[test]
fn the_input_hash_leaves_out_the_key_and_compares_after_defaults() {
    let hash = checked(input()).input_hash();
    let same = |change: fn(&mut StartRunInput)| {
        let mut other = input();
        change(&mut other);
        checked(other).input_hash() == hash
    };
    assert!(same(|i| i.idempotency_key = Some("k".to_owned())));
    assert!(same(|i| i.definition_id = i.definition_id.to_uppercase()));
    assert!(same(|i| i.params = Some(RunParams::default())));
    assert!(same(|i| i.metadata = Some(Value::Null)));

    assert!(!same(|i| i.definition_id = "0198f3a0-0000-7000-8000-00000000000b".to_owned()));
    assert!(!same(|i| i.models = vec!["mock/rater".to_owned()]));
    assert!(!same(|i| i.sample_percentage = 50));
    assert!(!same(|i| i.sample_seed = Some(0)));
    assert!(!same(|i| i.priority = RunPriority::High));
    assert!(!same(|i| i.experiment_id = Some("e".to_owned())));
    assert!(!same(|i| i.name = Some("n".to_owned())));
    assert!(!same(|i| i.params = Some(RunParams { seed: Some(1), ..RunParams::default() })));
    assert!(!same(|i| i.max_concurrency = Some(1)));
    assert!(!same(|i| i.metadata = Some(json!({}))));
}

#[test]
fn a_default_that_is_named_is_the_same_input_as_one_that_is_left_out() {
    let defaults = RunParams { temperature: Some(0.5), ..RunParams::default() };
    let mut named = input();
    named.params = Some(defaults);
    let hash = |input: StartRunInput| input.check(&defaults, &limits()).unwrap().input_hash();
    assert_eq!(hash(named), hash(input()));
}

/// Idempotency keys outlive an upgrade: a change of this value needs a new "v", and a look at stored hashes.
#[test]
fn the_input_hash_stays_as_it_is() {
    assert_eq!(
        checked(input()).input_hash(),
        "d7831de88ab642ca1b0e121ce7d2121b83162eaf55fc877e9110f641ee64d82e"
    );
}

proptest! {
    #[test]
    fn no_input_panics(
        text in any::<String>(), percentage: i32, seed in any::<Option<i32>>(), temperature in any::<Option<f64>>(),
    ) {
        let input = StartRunInput {
            definition_id: text.clone(),
            models: vec![text.clone()],
            sample_percentage: percentage,
            sample_seed: seed,
            experiment_id: Some(text.clone()),
            idempotency_key: Some(text.clone()),
            params: Some(RunParams { temperature, ..RunParams::default() }),
            metadata: Some(json!({&text: text})),
            ..input()
        };
        let _ = input.check(&RunParams::default(), &limits());
    }
}

#[test]
fn guards_are_checked_and_take_the_installations_minimum() {
    assert_eq!(wrong(|i| i.budget_usd = Some(Decimal::ZERO)), ["input.budgetUsd"]);
    for rate in [-0.1, 1.0, f64::NAN] {
        assert_eq!(wrong(|i| i.max_failure_rate = Some(rate)), ["input.maxFailureRate"], "{rate}");
    }
    assert_eq!(wrong(|i| i.min_finished = Some(3)), ["input.minFinished"], "it belongs to a rate");
    let run = checked(StartRunInput { max_failure_rate: Some(0.0), ..input() });
    let guard = run.failures.unwrap();
    assert_eq!((guard.max_rate, guard.min_finished), (0.0, limits().guard_min_finished));
}

#[test]
fn a_guard_is_part_of_what_was_asked_for() {
    let hash = |input: StartRunInput| checked(input).input_hash();
    let budget = |usd: &str, on_budget| StartRunInput { budget_usd: usd.parse().ok(), on_budget, ..input() };
    let plain = hash(input());
    assert_ne!(hash(budget("2.5", GuardAction::Pause)), plain);
    assert_ne!(hash(budget("2.5", GuardAction::Pause)), hash(budget("2.5", GuardAction::Stop)));
    assert_eq!(hash(budget("2.5", GuardAction::Pause)), hash(budget("2.50", GuardAction::Pause)));
    assert_ne!(hash(StartRunInput { max_failure_rate: Some(0.1), ..input() }), plain);
}
