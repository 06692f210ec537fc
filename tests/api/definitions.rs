//! Definitions: made, versioned, searched, and kept by their runs.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{create, created, of_run, with_keys};
use crate::support::app::Cluster;

async fn definition(cluster: &Cluster, id: &str, fields: &str) -> Value {
    let query = format!("query($id: ID!) {{ definition(id: $id) {{ {fields} }} }}");
    cluster.user(&query, json!({ "id": id })).await.data()["definition"].clone()
}

#[tokio::test]
async fn scenarios_are_the_product_of_the_dimensions_with_escaped_keys() {
    let cluster = Cluster::api_only(&[]).await;
    let input = json!({"name": "d", "content": {"template": "{{x}} {tone}: {a=b}", "dimensions": [
        {"name": "tone", "values": ["50%", "a;b"]}, {"name": "a=b", "values": ["y", "x"]}]}});
    let answer = create(&cluster, &input).await;
    assert_eq!(answer.data()["createDefinition"]["scenarioCount"], 4);
    let scenarios = definition(
        &cluster,
        &created(&answer),
        "scenarios { totalCount nodes { key name prompt dimensions } }",
    )
    .await;
    assert_eq!(scenarios["scenarios"]["totalCount"], 4);
    let seen: Vec<Value> = scenarios["scenarios"]["nodes"].as_array().unwrap().clone();
    let scenario = |key: &str, tone: &str, ab: &str| {
        json!({"key": key, "name": format!("{tone} · {ab}"), "prompt": format!("{{x}} {tone}: {ab}"),
               "dimensions": {"tone": tone, "a=b": ab}})
    };
    assert_eq!(
        seen,
        [
            scenario("tone=50%25;a%3Db=x", "50%", "x"),
            scenario("tone=50%25;a%3Db=y", "50%", "y"),
            scenario("tone=a%3Bb;a%3Db=x", "a;b", "x"),
            scenario("tone=a%3Bb;a%3Db=y", "a;b", "y"),
        ],
        "by key"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn explicit_scenarios_are_kept_as_given() {
    let cluster = Cluster::api_only(&[]).await;
    let input = json!({"name": "d", "content": {"preamble": "Be kind.", "scoring": {"min": 1, "max": 5}}, "scenarios": [
        {"key": "Z", "prompt": "line one\nline two", "dimensions": {"n": 1, "t": "x", "b": true}},
        {"key": "ä", "prompt": "{not a placeholder}"}, {"key": "a", "prompt": "p"}]});
    let id = created(&create(&cluster, &input).await);
    let fields = "name version content createdBy scenarioCount scenarios { nodes { key prompt dimensions } }";
    let seen = definition(&cluster, &id, fields).await;
    assert_eq!(
        seen["scenarios"]["nodes"],
        json!([
            {"key": "Z", "prompt": "line one\nline two", "dimensions": {"n": 1, "t": "x", "b": true}},
            {"key": "a", "prompt": "p", "dimensions": {}},
            {"key": "ä", "prompt": "{not a placeholder}", "dimensions": {}},
        ]),
        "by the bytes of the key"
    );
    assert_eq!(
        (&seen["createdBy"], &seen["version"], &seen["scenarioCount"]),
        (&json!("ada"), &json!(1), &json!(3))
    );
    assert_eq!(seen["content"]["preamble"], "Be kind.");
    assert_eq!(seen["content"]["scoring"], json!({"min": 1, "max": 5}));
    cluster.stop().await;
}

#[tokio::test]
async fn concurrent_creators_of_one_name_make_versions_without_gap_or_error() {
    let cluster = Cluster::api_only(&[]).await;
    let input = json!({"name": "shared", "content": {"template": "Well?"}});
    let answers = join_all((0..20).map(|_| create(&cluster, &input))).await;
    let ids: BTreeSet<String> = answers.iter().map(created).collect();
    assert_eq!(ids.len(), 20);
    let mut versions: Vec<i64> =
        answers.iter().map(|a| a.data()["createDefinition"]["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert!(versions.iter().copied().eq(1..=20), "{versions:?}");
    let other = create(&cluster, &json!({"name": "Shared", "content": {"template": "Well?"}})).await;
    assert_eq!(other.data()["createDefinition"]["version"], 1, "another name");
    cluster.stop().await;
}

#[tokio::test]
async fn a_run_keeps_the_definition_that_it_was_started_with() {
    let cluster = Cluster::api_only(&[]).await;
    let version = |text: &str| json!({"name": "d", "content": {"template": text}});
    let first = created(&create(&cluster, &version("one")).await);
    let run = cluster.run(&first, &["mock/echo"], json!({})).await;
    let second = created(&create(&cluster, &version("two")).await);
    assert_ne!(first, second);
    let seen = of_run(
        &cluster,
        &run,
        "definitionId definitionSnapshot definition { id version } scenarios { nodes { prompt } }",
    )
    .await;
    assert_eq!(
        (&seen["definitionId"], &seen["definition"]),
        (&json!(first), &json!({"id": first, "version": 1}))
    );
    assert_eq!(seen["definitionSnapshot"]["template"], "one");
    assert_eq!(seen["scenarios"]["nodes"], json!([{"prompt": "one"}]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_search_finds_what_contains_the_text_in_any_case_and_knows_no_patterns() {
    let cluster = Cluster::api_only(&[]).await;
    for name in ["Tone 100%", "tone_b", "toneXb", "Grüße", "back\\slash"] {
        with_keys(&cluster, name, ["k".to_owned()]).await;
    }
    for (search, found) in [
        (json!("TONE"), vec!["toneXb", "tone_b", "Tone 100%"]),
        (json!("e_b"), vec!["tone_b"]),
        (json!("0%"), vec!["Tone 100%"]),
        (json!("\\"), vec!["back\\slash"]),
        (json!("GRÜSSE"), vec![]),
        (json!("grü"), vec!["Grüße"]),
        (json!("nothing"), vec![]),
        (json!("  "), vec!["back\\slash", "Grüße", "toneXb", "tone_b", "Tone 100%"]),
        (json!(null), vec!["back\\slash", "Grüße", "toneXb", "tone_b", "Tone 100%"]),
    ] {
        let query = "query($s: String) { definitions(search: $s) { totalCount nodes { name } } }";
        let list = cluster.user(query, json!({ "s": search })).await.data()["definitions"].clone();
        assert_eq!(super::texts(&list["nodes"], "name"), found, "{search}: newest first");
        assert_eq!(list["totalCount"], found.len());
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_lists_its_own_runs_that_one_may_see() {
    let cluster = Cluster::api_only(&[]).await;
    let (a, b) = (cluster.definition(1).await, cluster.definition(2).await);
    let mut of_a = Vec::new();
    for _ in 0..3 {
        of_a.insert(0, cluster.run(&a, &["mock/echo"], json!({})).await);
        cluster.run(&b, &["mock/echo"], json!({})).await;
    }
    let runs = definition(&cluster, &a, "runs { totalCount nodes { id } }").await;
    assert_eq!(super::texts(&runs["runs"]["nodes"], "id"), of_a);
    assert_eq!(runs["runs"]["totalCount"], 3);
    let query = "query($id: ID!) { definition(id: $id) { runs { totalCount nodes { id } } } }";
    let others = cluster.ask("bob", runlane::domain::Role::User, query, json!({ "id": a })).await;
    assert_eq!(others.data()["definition"]["runs"], json!({"totalCount": 0, "nodes": []}));
    cluster.stop().await;
}
