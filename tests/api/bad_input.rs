//! Bad input is refused with the field, the problem and the limit, and changes nothing.

use serde_json::{Value, json};

use super::{create, created, rows};
use crate::support::app::{Answer, Cluster};

/// What is given, the field that is wrong with it, and what the message must say.
type Case = (Value, &'static str, &'static str);

async fn server() -> Cluster {
    Cluster::api_only(&[
        ("RUNLANE_SCENARIOS_MAX", "100"),
        ("RUNLANE_RUN_JOBS_MAX", "50"),
        ("RUNLANE_PROMPT_MAX_BYTES", "1000"),
        ("RUNLANE_MODELS_MAX", "3"),
        ("RUNLANE_METADATA_MAX_BYTES", "256"),
    ])
    .await
}

/// `base` with the fields of `over` in place of its own.
fn over(base: &Value, over: &Value) -> Value {
    let mut input = base.clone();
    for (key, value) in over.as_object().expect("an object") {
        input[key] = value.clone();
    }
    input
}

#[track_caller]
fn assert_refused(answer: &Answer, given: &Value, field: &str, says: &str) {
    let refusal = answer.refusal();
    assert_eq!(refusal["code"], "VALIDATION_ERROR", "{given}: {}", answer.body);
    assert_eq!(refusal["field"], field, "{given}: {}", answer.body);
    assert_eq!(refusal["errors"][0]["field"], field, "{given}");
    let message = refusal["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains(says), "{given}: {message}");
    assert!(answer.body["errors"][0]["message"].as_str().expect("a message").contains(message), "{given}");
    assert!(answer.body["data"].is_null());
}

fn nested(levels: usize) -> Value {
    (1..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn a_run_that_may_not_be_is_refused_with_its_field_and_changes_nothing() {
    let cluster = server().await;
    let definition = cluster.definition(20).await;
    let before = rows(&cluster.db).await;
    let base = json!({ "definitionId": definition, "models": ["mock/echo"] });
    let cases: Vec<Case> = vec![
        (json!({"models": []}), "input.models", "at least one model"),
        (json!({"models": ["mock/echo", "mock/rater", "mock/echo"]}), "input.models", "twice"),
        (json!({"models": ["mock"]}), "input.models", "provider/name"),
        (json!({"models": ["/echo"]}), "input.models", "provider/name"),
        (json!({"models": ["mock/"]}), "input.models", "provider/name"),
        (json!({"models": ["mock/a b"]}), "input.models", "U+0020"),
        (json!({"models": ["mock/a\0"]}), "input.models", "U+0000"),
        (json!({"models": ["nobody/echo"]}), "input.models", "unknown provider"),
        (json!({"models": [format!("mock/{}", "x".repeat(300))]}), "input.models", "at most 300 bytes"),
        (json!({"models": ["mock/a", "mock/b", "mock/c", "mock/d"]}), "input.models", "at most 3"),
        (json!({"samplePercentage": 0}), "input.samplePercentage", "from 1 to 100"),
        (json!({"samplePercentage": 101}), "input.samplePercentage", "from 1 to 100"),
        (json!({"samplePercentage": -5}), "input.samplePercentage", "is -5"),
        (json!({"sampleSeed": -1}), "input.sampleSeed", "from 0 to 2147483647"),
        (json!({"params": {"temperature": 2.01}}), "input.params.temperature", "from 0.0 to 2.0"),
        (json!({"params": {"temperature": -0.1}}), "input.params.temperature", "from 0.0 to 2.0"),
        (json!({"params": {"maxTokens": 0}}), "input.params.maxTokens", "from 1 to 1000000"),
        (json!({"params": {"maxTokens": 1_000_001}}), "input.params.maxTokens", "from 1 to 1000000"),
        (json!({"params": {"maxTurns": 101}}), "input.params.maxTurns", "from 1 to 100"),
        (json!({"params": {"seed": -1}}), "input.params.seed", "from 0 to 2147483647"),
        (json!({"params": {"timeoutSeconds": 86_401}}), "input.params.timeoutSeconds", "from 1 to 86400"),
        (json!({"maxConcurrency": 0}), "input.maxConcurrency", "from 1 to 100000"),
        (json!({"maxConcurrency": 100_001}), "input.maxConcurrency", "from 1 to 100000"),
        (json!({"metadata": "x".repeat(300)}), "input.metadata", "at most 256 bytes"),
        (json!({"metadata": nested(33)}), "input.metadata", "at most 32 levels"),
        (json!({"metadata": {"a": "b\0"}}), "input.metadata", "NUL"),
        (json!({"metadata": {"a\0": 1}}), "input.metadata", "NUL"),
        (json!({"idempotencyKey": ""}), "input.idempotencyKey", "is empty"),
        (json!({"idempotencyKey": "a b"}), "input.idempotencyKey", "visible ASCII"),
        (json!({"idempotencyKey": "k".repeat(201)}), "input.idempotencyKey", "at most 200 characters"),
        (json!({"name": "n".repeat(201)}), "input.name", "at most 200 characters"),
        (json!({"name": "a\nb"}), "input.name", "U+000A"),
        (json!({"name": "a\0"}), "input.name", "NUL"),
        (json!({"experimentId": "e".repeat(201)}), "input.experimentId", "at most 200 characters"),
    ];
    for (given, field, says) in cases {
        let answer = cluster.start_run(&definition, &["mock/echo"], over(&base, &given)).await;
        assert_refused(&answer, &given, field, says);
    }
    for unknown in ["0190b1de-0000-7000-8000-000000000000", "nonsense", "", "a\0b", "7"] {
        let answer = cluster.start_run(unknown, &["mock/echo"], json!({})).await;
        assert_eq!(answer.code(), "NOT_FOUND", "{unknown:?}: {}", answer.body);
    }
    let many = cluster.start_run(&definition, &["mock/a", "mock/b", "mock/c"], json!({})).await;
    assert_eq!(many.refusal(), &json!({"code": "QUEUE_ERROR", "jobs": 60, "limit": 50}));
    assert_eq!(rows(&cluster.db).await, before);

    let most = json!({"maxConcurrency": 100_000, "samplePercentage": 80, "sampleSeed": i32::MAX,
        "idempotencyKey": "k".repeat(200), "name": "n".repeat(200), "metadata": nested(32),
        "params": {"temperature": 2.0, "maxTokens": 1_000_000, "maxTurns": 100, "seed": i32::MAX, "timeoutSeconds": 86_400}});
    cluster.start_run(&definition, &["mock/a", "mock/b", "mock/c"], most).await.data();
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_that_may_not_be_is_refused_with_its_field_and_changes_nothing() {
    let cluster = server().await;
    let before = rows(&cluster.db).await;
    let base = json!({"name": "n", "content": {"template": "Is {a} {b}?", "dimensions": [
        {"name": "a", "values": ["1", "2"]}, {"name": "b", "values": ["1"]}]}});
    let content = |with: Value| json!({"content": over(&base["content"], &with)});
    let given = |scenarios: Value| json!({"content": {}, "scenarios": scenarios});
    let values = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let two =
        |a: Value, b: Value| json!({"dimensions": [{"name": "a", "values": a}, {"name": "b", "values": b}]});
    let cases: Vec<Case> = vec![
        (json!({"name": ""}), "input.name", "is empty"),
        (json!({"name": "ü".repeat(201)}), "input.name", "at most 200 characters"),
        (json!({"name": "a\0"}), "input.name", "NUL"),
        (content(json!({"schemaVersion": 2})), "input.content.schemaVersion", "give 1"),
        (content(json!({"preamble": "x".repeat(1001)})), "input.content.preamble", "at most 1000 bytes"),
        (content(json!({"template": "x".repeat(1001)})), "input.content.template", "at most 1000 bytes"),
        (content(json!({"template": "{a} {b} {c}"})), "input.content.template", "no dimension fills"),
        (content(json!({"template": "{a"})), "input.content.template", "never closed"),
        (content(json!({"template": "{a} {b}\0"})), "input.content.template", "NUL"),
        (content(json!({"template": "only {a}"})), "input.content.dimensions[1]", "no placeholder"),
        (json!({"content": {}}), "input.content.template", "is missing"),
        (content(two(json!([]), json!(["1"]))), "input.content.dimensions[0].values", "at least one value"),
        (content(two(json!(["x", "x"]), json!(["1"]))), "input.content.dimensions[0].values[1]", "twice"),
        (
            content(two(json!(values(11)), json!(values(10)))),
            "input.content.dimensions",
            "at most 100 scenarios",
        ),
        (
            content(two(json!(["x".repeat(401)]), json!(["1"]))),
            "input.content.dimensions[0].values[0]",
            "at most 400 bytes",
        ),
        (
            content(two(json!(["x".repeat(400)]), json!(["y".repeat(400)]))),
            "input.content.dimensions",
            "at most 500 bytes",
        ),
        (content(json!({"scoring": {"min": 5, "max": 5}})), "input.content.scoring", "min below the max"),
        (content(json!({"params": {"maxTokens": 0}})), "input.content.params.maxTokens", "from 1 to 1000000"),
        (content(json!({"followups": [""]})), "input.content.followups[0]", "is empty"),
        (
            content(json!({"lifecycle": {"maxDurationMinutes": 0}})),
            "input.content.lifecycle.maxDurationMinutes",
            "from 1 to 525600",
        ),
        (given(json!([])), "input.scenarios", "at least one"),
        (
            given(json!([{"key": "a", "prompt": "x"}, {"key": "a", "prompt": "y"}])),
            "input.scenarios[1].key",
            "twice",
        ),
        (
            given(json!([{"key": "a".repeat(501), "prompt": "x"}])),
            "input.scenarios[0].key",
            "at most 500 bytes",
        ),
        (given(json!([{"key": "a\0", "prompt": "x"}])), "input.scenarios[0].key", "NUL"),
        (
            given(json!([{"key": "a", "prompt": "x".repeat(1001)}])),
            "input.scenarios[0].prompt",
            "at most 1000 bytes",
        ),
        (given(json!([{"key": "a", "prompt": ""}])), "input.scenarios[0].prompt", "is empty"),
        (
            given(json!([{"key": "a", "prompt": "x", "dimensions": [1]}])),
            "input.scenarios[0].dimensions",
            "object",
        ),
        (
            given(json!([{"key": "a", "prompt": "x", "dimensions": {"d": [1]}}])),
            "input.scenarios[0].dimensions",
            "a number or a boolean",
        ),
        (
            given(json!(values(101).iter().map(|k| json!({"key": k, "prompt": "x"})).collect::<Vec<_>>())),
            "input.scenarios",
            "at most 100",
        ),
    ];
    for (given, field, says) in cases {
        let answer = create(&cluster, &over(&base, &given)).await;
        assert_refused(&answer, &given, field, says);
    }
    assert_eq!(rows(&cluster.db).await, before);
    created(&create(&cluster, &base).await);
    cluster.stop().await;
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let cluster = server().await;
    let answer = cluster
        .start_run(
            "nonsense",
            &[],
            json!({"samplePercentage": 0, "sampleSeed": -1, "params": {"maxTurns": 0}, "name": ""}),
        )
        .await;
    let mut fields = super::texts(&answer.refusal()["errors"], "field");
    fields.sort();
    assert_eq!(
        fields,
        ["input.models", "input.name", "input.params.maxTurns", "input.samplePercentage", "input.sampleSeed"]
    );
    let input = json!({"name": "", "content": {"template": "{x}", "scoring": {"min": 1, "max": 0}}});
    let answer = create(&cluster, &input).await;
    assert_eq!(
        super::texts(&answer.refusal()["errors"], "field"),
        ["input.name", "input.content.scoring", "input.content.template"]
    );
    let answer = cluster.user("{ runs(first: 0, after: \"zz\") { nodes { id } } }", json!({})).await;
    assert_eq!(super::texts(&answer.refusal()["errors"], "field"), ["first", "after"]);
    cluster.stop().await;
}

#[tokio::test]
async fn bad_arguments_of_lists_and_pauses_name_their_field() {
    let cluster = server().await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let before = rows(&cluster.db).await;
    let runs_cursor = cluster.user("{ runs(first: 1) { pageInfo { endCursor } } }", json!({})).await.data()["runs"]
        ["pageInfo"]["endCursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let in_run = |field: &str| format!("{{ run(id: \"{run}\") {{ {field} }} }}");
    let cases = [
        ("{ runs(first: 0) { nodes { id } } }".to_owned(), "first", "give 1 to 100"),
        ("{ definitions(first: -1) { nodes { id } } }".to_owned(), "first", "give 1 to 100"),
        ("{ runs(after: \"zz\") { nodes { id } } }".to_owned(), "after", "no cursor of this list"),
        (
            format!("{{ definitions(after: \"{runs_cursor}\") {{ nodes {{ id }} }} }}"),
            "after",
            "no cursor of this list",
        ),
        ("{ definitions(search: \"a\\u0000\") { nodes { id } } }".to_owned(), "search", "NUL"),
        (
            format!("{{ definitions(search: \"{}\") {{ nodes {{ id }} }} }}", "s".repeat(201)),
            "search",
            "at most 200",
        ),
        ("{ runs(filter: {createdBy: \"\"}) { nodes { id } } }".to_owned(), "filter.createdBy", "is empty"),
        (in_run("jobs(first: 0) { nodes { id } }"), "first", "give 1 to 100"),
        (in_run("jobs(filter: {type: [\"probe\"]}) { nodes { id } }"), "filter.type[0]", "probe:scenario"),
        (in_run("transcripts(first: 0) { nodes { id } }"), "first", "give 1 to 100"),
        (in_run("transcripts(modelId: \"\") { nodes { id } }"), "modelId", "is empty"),
        (in_run("scenarios(after: \"00\") { nodes { id } }"), "after", "no cursor of this list"),
        (in_run("recentTasks(limit: 101) { jobId }"), "limit", "from 0 to 100"),
        (in_run("recentTasks(limit: -1) { jobId }"), "limit", "from 0 to 100"),
    ];
    for (query, field, says) in cases {
        let refusal = cluster.user(&query, json!({})).await.refusal().clone();
        assert_eq!(
            (&refusal["code"], &refusal["field"]),
            (&json!("VALIDATION_ERROR"), &json!(field)),
            "{query}"
        );
        assert!(refusal["errors"][0]["message"].as_str().unwrap().contains(says), "{query}: {refusal}");
    }
    for (reason, says) in
        [("r".repeat(501), "at most 500 characters"), ("a\nb".to_owned(), "U+000A"), ("\0".to_owned(), "NUL")]
    {
        let pause = "mutation($reason: String) { pauseQueue(reason: $reason) { isPaused } }";
        let refusal = cluster.admin(pause, json!({ "reason": reason })).await.refusal().clone();
        assert_eq!((&refusal["code"], &refusal["field"]), (&json!("VALIDATION_ERROR"), &json!("reason")));
        assert!(refusal["errors"][0]["message"].as_str().unwrap().contains(says), "{refusal}");
    }
    assert_eq!(
        cluster.user("{ queueStatus { isPaused } }", json!({})).await.data()["queueStatus"]["isPaused"],
        false
    );
    assert_eq!(rows(&cluster.db).await, before);
    cluster.stop().await;
}

#[tokio::test]
async fn values_of_the_wrong_type_are_validation_errors() {
    let cluster = server().await;
    let definition = cluster.definition(3).await;
    let before = rows(&cluster.db).await;
    for given in [
        json!({"sampleSeed": 2_147_483_648_i64}),
        json!({"sampleSeed": u64::MAX}),
        json!({"sampleSeed": 1e300}),
        json!({"samplePercentage": 50.5}),
        json!({"samplePercentage": "50"}),
        json!({"samplePercentage": null}),
        json!({"models": "mock/echo\u{0}"}),
        json!({"models": [1]}),
        json!({"models": null}),
        json!({"priority": "URGENT"}),
        json!({"params": []}),
        json!({"definitionId": {"a": 1}}),
        json!({"unknownField": 1}),
    ] {
        let answer = cluster.start_run(&definition, &["mock/echo"], given.clone()).await;
        assert_eq!(answer.code(), "VALIDATION_ERROR", "{given}: {}", answer.body);
    }
    for query in [
        "{ runs(first: 99999999999999999999) { nodes { id } } }",
        "{ runs(first: \"a\") { nodes { id } } }",
        "{ runs(filter: {status: [LOST]}) { nodes { id } } }",
        "{ run { id } }",
        "{ run(id: 1.5) { id } }",
        "{ nothing }",
        "{ runs { nodes } }",
        "query($x: Nothing) { runs { nodes { id } } }",
        "{",
    ] {
        let answer = cluster.user(query, json!({})).await;
        let errors = answer.body["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{query}");
        assert!(
            errors.iter().all(|e| e["extensions"]["code"] == "VALIDATION_ERROR"),
            "{query}: {}",
            answer.body
        );
    }
    assert_eq!(rows(&cluster.db).await, before);
    cluster.stop().await;
}

#[tokio::test]
async fn a_malformed_id_is_null_in_a_query_and_not_found_in_a_mutation() {
    let cluster = server().await;
    let before = rows(&cluster.db).await;
    for id in ["nonsense", "", "a\0b", "-1", "99999999999999999999", "0190b1de-0000-7000-8000-000000000000"] {
        for field in ["definition", "run", "job"] {
            let query = format!("query($id: ID!) {{ {field}(id: $id) {{ id }} }}");
            let answer = cluster.user(&query, json!({ "id": id })).await;
            assert!(answer.data()[field].is_null(), "{field} {id:?}: {}", answer.body);
        }
        for call in [
            "pauseRun(id: $id)",
            "resumeRun(id: $id)",
            "cancelRun(id: $id)",
            "setRunPriority(id: $id, priority: HIGH)",
            "retryFailedJobs(runId: $id)",
            "startAnalysis(runId: $id, kind: BASIC)",
            "cancelJob(id: $id)",
            "retryJob(id: $id)",
        ] {
            let query = format!("mutation($id: ID!) {{ {call} {{ id }} }}");
            assert_eq!(cluster.user(&query, json!({ "id": id })).await.code(), "NOT_FOUND", "{call} {id:?}");
        }
        let filter = json!({ "filter": { "definitionId": id, "batchId": id } });
        let list = "query($filter: RunFilter) { runs(filter: $filter) { totalCount nodes { id } } }";
        assert_eq!(cluster.user(list, filter).await.data()["runs"], json!({"totalCount": 0, "nodes": []}));
    }
    assert_eq!(rows(&cluster.db).await, before);
    cluster.stop().await;
}
