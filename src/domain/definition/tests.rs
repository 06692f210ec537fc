use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Numbers;
use crate::domain::limits::Limits;

fn limits() -> Limits {
    Numbers::default().limits()
}

fn content(template: &str, dimensions: &[(&str, &[&str])]) -> DefinitionContent {
    let dimensions = dimensions
        .iter()
        .map(|(name, values)| Dimension {
            name: (*name).to_owned(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        })
        .collect();
    DefinitionContent {
        schema_version: 1,
        preamble: None,
        template: Some(template.to_owned()),
        dimensions: Some(dimensions),
        followups: None,
        scoring: None,
        params: None,
        lifecycle: None,
    }
}

fn create(content: DefinitionContent) -> CreateDefinition {
    CreateDefinition { name: "tones".to_owned(), content, scenarios: None }
}

fn given(key: &str, prompt: &str, dimensions: Value) -> Scenario {
    Scenario { key: key.to_owned(), prompt: prompt.to_owned(), dimensions }
}

/// The mistakes as "field message".
fn mistakes(create: CreateDefinition, limits: &Limits) -> Vec<String> {
    create.check(limits).err().map_or_else(Vec::new, |e| e.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn assert_mistake(create: CreateDefinition, limits: &Limits, field: &str, part: &str) {
    let all = mistakes(create, limits);
    assert!(
        all.iter().any(|m| m.starts_with(&format!("{field} ")) && m.contains(part)),
        "{field} {part}: {all:?}"
    );
}

#[test]
fn scenarios_are_the_product_of_the_dimensions_in_the_template() {
    let dims: &[(&str, &[&str])] = &[("tone", &["formal", "a=b;c%"]), ("country", &["France", "Perú"])];
    let checked = create(content("{{{tone}}} in {country}, {tone}", dims)).check(&limits()).unwrap();
    let made: Vec<(&str, &str)> =
        checked.scenarios.iter().map(|s| (s.key.as_str(), s.prompt.as_str())).collect();
    assert_eq!(
        made,
        [
            ("tone=formal;country=France", "{formal} in France, formal"),
            ("tone=formal;country=Perú", "{formal} in Perú, formal"),
            ("tone=a%3Db%3Bc%25;country=France", "{a=b;c%} in France, a=b;c%"),
            ("tone=a%3Db%3Bc%25;country=Perú", "{a=b;c%} in Perú, a=b;c%"),
        ]
    );
    assert_eq!(checked.scenarios[3].dimensions, json!({"tone": "a=b;c%", "country": "Perú"}));
}

#[test]
fn a_template_without_dimensions_makes_one_scenario() {
    let checked = create(content("Say hello.", &[])).check(&limits()).unwrap();
    assert_eq!(checked.scenarios, [given("default", "Say hello.", json!({}))]);
}

#[test]
fn given_scenarios_win_and_need_no_template() {
    let mut definition = create(content("{unknown", &[("tone", &["a"])]));
    definition.scenarios = Some(vec![given("k", "p {x}", Value::Null)]);
    assert_eq!(definition.clone().check(&limits()).unwrap().scenarios, [given("k", "p {x}", json!({}))]);
    definition.content.template = None;
    definition.content.dimensions = None;
    assert!(definition.check(&limits()).is_ok());
}

#[test]
fn template_and_dimensions_must_fit_each_other() {
    let limits = limits();
    let dims: &[(&str, &[&str])] = &[("tone", &["a"])];
    let mut none = create(content("x", &[]));
    none.content.template = None;
    assert_mistake(none, &limits, "input.content.template", "give scenarios");
    assert_mistake(create(content("{tone} {mood}", dims)), &limits, "input.content.template", "\"mood\"");
    assert_mistake(create(content("no hole", dims)), &limits, "input.content.dimensions[0]", "same prompt");
    assert_mistake(create(content("{tone} {", dims)), &limits, "input.content.template", "never closed");
    assert_mistake(create(content("  ", &[])), &limits, "input.content.template", "blank");
}

#[test]
fn dimensions_are_named_once_and_have_values_once() {
    let limits = limits();
    let check = |dims: &[(&str, &[&str])], field: &str, part: &str| {
        assert_mistake(
            create(content("{a}", dims)),
            &limits,
            &format!("input.content.dimensions{field}"),
            part,
        );
    };
    check(&[("a", &[])], "[0].values", "empty");
    check(&[("a", &["x", "y", "x"])], "[0].values[2]", "twice");
    check(&[("a", &["x"]), ("a", &["y"])], "[1].name", "twice");
    check(&[("", &["x"])], "[0].name", "empty");
    check(&[("a", &[" "])], "[0].values[0]", "blank");
    check(&[("a\n", &["x"])], "[0].name", "U+000A");
    check(&[("{a}", &["x"])], "[0].name", "braces");
    check(&[("a", &["x\0"])], "[0].values[0]", "NUL");
    check(&[("a", &[&"x".repeat(401)])], "[0].values[0]", "400 bytes");
}

#[test]
fn a_product_that_is_too_large_is_refused_before_it_is_made() {
    // 10^40 scenarios: more than 2^128.
    let values: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let names: Vec<String> = (0..40).map(|i| format!("d{i}")).collect();
    let mut huge = content(&names.iter().map(|n| format!("{{{n}}}")).collect::<String>(), &[]);
    huge.dimensions =
        Some(names.iter().map(|name| Dimension { name: name.clone(), values: values.clone() }).collect());
    assert_mistake(create(huge), &limits(), "input.content.dimensions", "at most 100000 scenarios");

    let dims: &[(&str, &[&str])] = &[("a", &["xx", "y"]), ("b", &["1", "2"])];
    let exact = |change: fn(&mut Limits)| {
        // Keys "a=xx;b=1" of 8 bytes, prompts "xx-1" of 4; 4 × 12 bytes in all.
        let mut limits = limits();
        (limits.scenarios_max, limits.scenario_key_max_bytes) = (4, 8);
        (limits.prompt_max_bytes, limits.definition_max_bytes) = (7, 48);
        change(&mut limits);
        mistakes(create(content("{a}-{b}", dims)), &limits)
    };
    assert_eq!(exact(|_| ()), [""; 0]);
    assert!(exact(|l| l.scenarios_max = 3)[0].contains("make 4 scenarios"));
    assert!(exact(|l| l.scenario_key_max_bytes = 7)[0].contains("key of 8 bytes"));
    assert!(exact(|l| l.definition_max_bytes = 47)[0].contains("48 bytes"));
    let mut small = limits();
    small.prompt_max_bytes = 10;
    assert_mistake(
        create(content("{a}{a}", &[("a", &["long value"])])),
        &small,
        "input.content.template",
        "prompt of 20 bytes",
    );
}

#[test]
fn given_scenarios_are_checked_one_by_one() {
    let check = |scenarios: Vec<Scenario>, field: &str, part: &str| {
        let limits = Limits { scenarios_max: 3, definition_max_bytes: 200_500, ..limits() };
        let definition = CreateDefinition { scenarios: Some(scenarios), ..create(content("x", &[])) };
        assert_mistake(definition, &limits, &format!("input.scenarios{field}"), part);
    };
    let fine = || given("a", "p", json!({"n": 1, "t": "x", "b": true}));
    check(vec![], "", "empty");
    check(vec![fine(), fine(), fine(), fine()], "", "at most 3");
    check(vec![fine(), fine()], "[1].key", "twice");
    check(vec![given("", "p", Value::Null)], "[0].key", "empty");
    check(vec![given("a\tb", "p", Value::Null)], "[0].key", "U+0009");
    check(vec![given(&"k".repeat(501), "p", Value::Null)], "[0].key", "500 bytes");
    check(vec![given("a", "", Value::Null)], "[0].prompt", "empty");
    check(vec![given("a", "p\0", Value::Null)], "[0].prompt", "NUL");
    check(vec![given("a", &"p".repeat(100_001), Value::Null)], "[0].prompt", "100000 bytes");
    check(vec![given("a", "p", json!([1]))], "[0].dimensions", "JSON object");
    check(vec![given("a", "p", json!({"x": {"y": 1}}))], "[0].dimensions", "\"x\"");
    check(vec![given("a", "p", json!({"": 1}))], "[0].dimensions", "empty");
    check(vec![given("a", "p", json!({"x": "\0"}))], "[0].dimensions", "NUL");
    let long = |key: &str| given(key, &"p".repeat(99_999), Value::Null);
    check(vec![long("a"), long("b"), long("c")], "", "300000 bytes in all");
}

#[test]
fn every_mistake_of_the_rest_is_reported_at_once() {
    let mut definition = create(content("hello", &[]));
    definition.name = "x".repeat(201);
    definition.content.schema_version = 2;
    definition.content.preamble = Some("\0".to_owned());
    definition.content.followups = Some(vec!["ok".to_owned(), String::new()]);
    definition.content.scoring = Some(Scoring { min: 5, max: 5 });
    definition.content.params = Some(RunParams { max_turns: Some(0), ..RunParams::default() });
    definition.content.lifecycle = Some(Lifecycle { max_duration_minutes: Some(0), ..Lifecycle::default() });
    let errors = definition.clone().check(&limits()).unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "input.name",
            "input.content.schemaVersion",
            "input.content.preamble",
            "input.content.followups[1]",
            "input.content.scoring",
            "input.content.params.maxTurns",
            "input.content.lifecycle.maxDurationMinutes",
        ]
    );
    definition.content.followups = Some(vec!["more".to_owned(); 21]);
    definition.content.scoring = Some(Scoring { min: 0, max: i32::MAX });
    assert_mistake(definition.clone(), &limits(), "input.content.followups", "at most 20");
    assert_mistake(definition, &limits(), "input.content.scoring.max", "1000000");
}

#[test]
fn content_is_stored_as_the_client_wrote_it() {
    let mut shown = content("{a}", &[("a", &["x"])]);
    shown.lifecycle =
        Some(Lifecycle { staleness_action: Some(StalenessAction::Dlq), ..Lifecycle::default() });
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(
        json,
        json!({
            "schemaVersion": 1,
            "template": "{a}",
            "dimensions": [{"name": "a", "values": ["x"]}],
            "lifecycle": {"stalenessAction": "DLQ"},
        })
    );
    assert_eq!(serde_json::from_value::<DefinitionContent>(json).unwrap(), shown);
}

#[test]
fn names_are_the_values_when_the_key_was_made_of_them() {
    let name = |key: &str, dimensions: Value| scenario_name(key, dimensions.as_object().unwrap());
    assert_eq!(
        name("tone=formal;country=Fr%3B", json!({"country": "Fr;", "tone": "formal"})),
        "formal · Fr;"
    );
    assert_eq!(name("greeting-1", json!({"tone": "formal"})), "greeting-1");
    assert_eq!(name("tone=formal", json!({"tone": "formal", "n": 1})), "tone=formal");
    assert_eq!(name("default", json!({})), "default");
}

fn unescape(text: &str) -> String {
    text.replace("%3B", ";").replace("%3D", "=").replace("%25", "%")
}

prop_compose! {
    fn dimensions()(sets in prop::collection::btree_map(
        "[a-c%;=]{1,3}", prop::collection::btree_set("[a-c%;=]{1,3}", 1..4), 0..4,
    )) -> Vec<Dimension> {
        sets.into_iter().map(|(name, values)| Dimension { name, values: values.into_iter().collect() }).collect()
    }
}

proptest! {
    #[test]
    fn escaping_can_be_undone(text in any::<String>()) {
        let escaped = escape_key_part(&text);
        prop_assert!(!escaped.contains([';', '=']));
        prop_assert_eq!(unescape(&escaped), text.clone());
        prop_assert_eq!(key::escaped_len(&text), escaped.len());
    }

    #[test]
    fn a_product_has_as_many_unique_keys_as_combinations(dimensions in dimensions()) {
        let template: String = dimensions.iter().map(|d| format!("{{{}}} ", d.name)).collect::<String>() + ".";
        let expected: usize = dimensions.iter().map(|d| d.values.len()).product();
        let mut definition = create(content(&template, &[]));
        definition.content.dimensions = Some(dimensions);
        let checked = definition.check(&limits()).unwrap();
        let keys: HashSet<&str> = checked.scenarios.iter().map(|s| s.key.as_str()).collect();
        prop_assert_eq!((checked.scenarios.len(), keys.len()), (expected, expected));
    }

    #[test]
    fn no_input_panics(
        name in any::<String>(), template in "[{}a\0 ]{0,12}", key in any::<String>(), prompt in any::<String>(),
        dimension in any::<String>(), values in prop::collection::vec(any::<String>(), 0..3), given_too: bool,
    ) {
        let mut definition = create(content(&template, &[]));
        definition.name = name;
        definition.content.dimensions = Some(vec![Dimension { name: dimension, values }]);
        definition.scenarios = given_too.then(|| vec![given(&key, &prompt, json!({&key: prompt.clone()}))]);
        let _ = definition.check(&limits());
    }
}
