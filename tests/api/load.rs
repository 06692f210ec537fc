//! What one request may cost, and that a heavy one does not hold up the others.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use runlane::config::Numbers;
use runlane::domain::definition::{CreateDefinition, DefinitionContent, Dimension};
use serde_json::{Value, json};

use super::{create, created};
use crate::support::app::Cluster;

/// What this thread has computed since it began. Unlike time on the wall, it does not depend on what else the machine does.
fn computed() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Unix has this clock");
    Duration::from(time)
}

/// Runs `work`; returns what it gives, and the most that this thread computed until `/live` was answered meanwhile.
async fn longest_wait<T>(cluster: &Cluster, work: impl Future<Output = T>) -> (T, Duration) {
    let (mut longest, client) = (Duration::ZERO, reqwest::Client::new());
    let live = format!("http://{}/live", cluster.address);
    tokio::pin!(work);
    loop {
        let began = computed();
        let request = async { client.get(&live).send().await.unwrap().error_for_status().unwrap() };
        tokio::select! {
            done = &mut work => return (done, longest.max(computed() - began)),
            _ = request => longest = longest.max(computed() - began),
        }
    }
}

/// The server shares this test's only thread, so whatever blocks that thread delays `/live` as long.
#[tokio::test]
async fn making_a_hundred_thousand_scenarios_does_not_hold_up_other_requests() {
    let cluster = Cluster::api_only(&[("RUNLANE_HTTP_REQUEST_TIMEOUT_MS", "120000")]).await;
    let values = |n: usize| (0..n).map(|i| format!("{i:03}")).collect::<Vec<_>>();
    let dimension = |name: &str, n| json!({"name": name, "values": values(n)});
    let content =
        json!({"template": "Is {a} {b}?", "dimensions": [dimension("a", 200), dimension("b", 500)]});
    let input = json!({"name": "large", "content": content});
    let began = computed();
    let dimensions =
        [("a", 200), ("b", 500)].map(|(name, n)| Dimension { name: name.into(), values: values(n) });
    let content = DefinitionContent {
        template: Some("Is {a} {b}?".into()),
        dimensions: Some(dimensions.into()),
        schema_version: 1,
        preamble: None,
        followups: None,
        scoring: None,
        params: None,
        lifecycle: None,
    };
    CreateDefinition { name: "large".into(), content, scenarios: None }
        .check(&Numbers::default().limits())
        .unwrap();
    let making = computed() - began;
    let (answer, waited) = longest_wait(&cluster, create(&cluster, &input)).await;
    assert!(waited < making / 2, "waited {waited:?} while scenarios were made, which takes {making:?}");
    let definition = created(&answer);
    let start = cluster.run(&definition, &["mock/echo"], json!({"samplePercentage": 1, "sampleSeed": 1}));
    let (run, sampled) = longest_wait(&cluster, start).await;
    assert!(
        sampled < making / 2,
        "waited {sampled:?} while scenarios were sampled; making them takes {making:?}"
    );
    assert_eq!(cluster.state(&run).await["progress"]["total"], 1_000);
    cluster.stop().await;
}

async fn message(cluster: &Cluster, query: &str) -> (Value, String) {
    let answer = cluster.user(query, json!({})).await;
    let message = answer.body["errors"][0]["message"].as_str().unwrap_or_default().to_owned();
    (if message.is_empty() { Value::Null } else { answer.refusal()["code"].clone() }, message)
}

#[tokio::test]
async fn a_query_may_not_be_too_deep_too_dear_or_have_too_many_directives() {
    let cluster = Cluster::api_only(&[("RUNLANE_GRAPHQL_COMPLEXITY_MAX", "2000")]).await;
    cluster.definition(1).await;
    let refused = |text: &str| (json!("VALIDATION_ERROR"), text.to_owned());
    let fine = (Value::Null, String::new());
    let deep = |levels: usize| {
        // definitions, nodes, then pairs of fields, then id.
        let pairs = (levels - 3) / 3;
        format!(
            "{{ definitions(first: 1) {{ nodes {{ {} id {} }} }} }}",
            "runs(first: 1) { nodes { definition { ".repeat(pairs),
            "} } }".repeat(pairs)
        )
    };
    assert_eq!(message(&cluster, &deep(15)).await, fine);
    assert_eq!(message(&cluster, &deep(18)).await, refused("Query is nested too deep."));

    let list = |first: usize| {
        format!("{{ runs(first: {first}) {{ nodes {{ jobs(first: {first}) {{ nodes {{ id type }} }} }} }} }}")
    };
    assert_eq!(message(&cluster, &list(20)).await, fine);
    assert_eq!(message(&cluster, &list(40)).await, refused("Query is too complex."));
    let by_variable = "query($n: Int!) { runs(first: $n) { nodes { jobs(first: $n) { nodes { id } } } } }";
    assert_eq!(cluster.user(by_variable, json!({"n": 100})).await.code(), "VALIDATION_ERROR");
    cluster.user(by_variable, json!({"n": 10})).await.data();

    let directives = |n: usize| format!("{{ queueStatus {{ id {} }} }}", "@include(if: true) ".repeat(n));
    let (code, text) = message(&cluster, &directives(11)).await;
    assert_eq!(code, "VALIDATION_ERROR");
    assert!(text.contains("directives"), "{text}");
    cluster.stop().await;
}

#[tokio::test]
async fn the_introspection_of_graphiql_is_within_the_limits() {
    let cluster = Cluster::api_only(&[]).await;
    let of_type = "ofType { kind name ".repeat(9) + &"} ".repeat(9);
    let value = "name description type { ...TypeRef } defaultValue isDeprecated deprecationReason";
    let query = format!(
        "query IntrospectionQuery {{ __schema {{
            description queryType {{ name kind }} mutationType {{ name kind }} subscriptionType {{ name kind }}
            types {{ ...FullType }}
            directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ ...InputValue }} }} }} }}
         fragment FullType on __Type {{ kind name description specifiedByURL
            fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ ...InputValue }}
                type {{ ...TypeRef }} isDeprecated deprecationReason }}
            inputFields(includeDeprecated: true) {{ ...InputValue }}
            interfaces {{ ...TypeRef }}
            enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
            possibleTypes {{ ...TypeRef }} }}
         fragment InputValue on __InputValue {{ {value} }}
         fragment TypeRef on __Type {{ kind name {of_type} }}"
    );
    let answer = cluster.user(&query, json!({})).await;
    let types = super::texts(&answer.data()["__schema"]["types"], "name");
    assert!(types.contains(&"Run".to_owned()) && types.contains(&"QueueStatus".to_owned()), "{types:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn only_the_origins_that_are_configured_may_call() {
    let cluster =
        Cluster::api_only(&[("RUNLANE_CORS_ORIGINS", "https://app.example.org, http://localhost:5173")])
            .await;
    for (origin, allowed) in [
        ("https://app.example.org", true),
        ("http://localhost:5173", true),
        ("https://evil.example.org", false),
    ] {
        let response = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, format!("http://{}/graphql", cluster.address))
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type")
            .send()
            .await
            .unwrap();
        let header = response.headers().get("access-control-allow-origin").map(|h| h.to_str().unwrap());
        assert_eq!(header, allowed.then_some(origin));
    }
    cluster.stop().await;
}
