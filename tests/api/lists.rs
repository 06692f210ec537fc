//! Lists within a run and a definition: pages, filters, counts.

use serde_json::{Value, json};

use super::{of_run, with_keys};
use crate::support::app::Cluster;

/// Reads a list page by page; the query takes `$first` and `$after`, `at` leads to the connection. Checks what each page
/// says of itself, and calls `between` after the first page. Returns the nodes.
pub(super) async fn pages(
    cluster: &Cluster,
    query: &str,
    first: usize,
    at: &[&str],
    between: impl AsyncFnOnce(),
) -> Vec<Value> {
    let (mut after, mut seen, mut between) = (Value::Null, Vec::new(), Some(between));
    loop {
        let answer = cluster.user(query, json!({ "first": first, "after": after })).await;
        let page = at.iter().fold(answer.data(), |value, field| &value[*field]).clone();
        let nodes = page["nodes"].as_array().unwrap_or_else(|| panic!("no list: {page}")).clone();
        let edges = page["edges"].as_array().unwrap();
        assert_eq!(edges.iter().map(|e| e["node"].clone()).collect::<Vec<_>>(), nodes);
        let info = &page["pageInfo"];
        assert_eq!(info["hasPreviousPage"], !after.is_null());
        let ends = [edges.first(), edges.last()].map(|e| e.map_or(Value::Null, |e| e["cursor"].clone()));
        assert_eq!([&info["startCursor"], &info["endCursor"]], [&ends[0], &ends[1]]);
        let more = info["hasNextPage"].as_bool().unwrap();
        assert!(nodes.len() == first || !more, "a page that others follow is full: {page}");
        seen.extend(nodes);
        if !more {
            return seen;
        }
        after = info["endCursor"].clone();
        if let Some(between) = between.take() {
            between().await;
        }
    }
}

/// The fields of a connection that [`pages`] reads.
pub(super) fn connection(node: &str) -> String {
    format!(
        "edges {{ cursor node {{ {node} }} }} nodes {{ {node} }}
         pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}"
    )
}

#[tokio::test]
async fn scenarios_come_by_key_each_once() {
    let cluster = Cluster::api_only(&[]).await;
    let mut keys: Vec<String> = ["b", "a", "Z", "ä", "a b", "a:b", "~"].map(str::to_owned).to_vec();
    let definition = with_keys(&cluster, "d", keys.clone()).await;
    let run = cluster.run(&definition, &["mock/a", "mock/b"], json!({})).await;
    keys.sort();
    let fields = connection("key");
    for (field, id) in [("definition", &definition), ("run", &run)] {
        for first in [1, 3, 7, 100] {
            let query = format!(
                "query($first: Int!, $after: String) {{ {field}(id: \"{id}\") {{ scenarios(first: $first, after: $after) {{ {fields} }} }} }}"
            );
            let seen = pages(&cluster, &query, first, &[field, "scenarios"], async || {}).await;
            assert_eq!(super::texts(&json!(seen), "key"), keys, "{field} by {first}");
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn every_filter_of_jobs_alone_and_combined_gives_just_those_and_their_number() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(4).await;
    let models = ["mock/echo", "mock/echo?fail=validation", "mock/echo?fail=not_found"];
    let run = cluster.run(&definition, &models, json!({})).await;
    cluster
        .until(&run, "analysed", |run| {
            run["status"] == "COMPLETED" && run["analyses"][0]["status"] == "COMPLETED"
        })
        .await;
    // A second run waits for ever and then is cancelled, for the other statuses.
    let other = cluster
        .run(&definition, &["openai/x", "mock/echo?delayMs=60000"], json!({"maxConcurrency": 2}))
        .await;
    cluster.until(&other, "running", |run| run["progress"]["active"] == 2).await;
    let kinds = [
        None,
        Some(vec!["probe:scenario"]),
        Some(vec!["analyze:basic"]),
        Some(vec!["probe:scenario", "analyze:basic"]),
        Some(vec![]),
    ];
    let statuses = [
        None,
        Some(vec!["COMPLETED"]),
        Some(vec!["FAILED"]),
        Some(vec!["FAILED", "COMPLETED"]),
        Some(vec!["PENDING"]),
        Some(vec!["RUNNING", "CANCELLED"]),
        Some(vec![]),
    ];
    let models =
        [None, Some("mock/echo"), Some("mock/echo?fail=validation"), Some("openai/x"), Some("mock/none")];
    let codes = [None, Some("validation"), Some("not_found"), Some("nothing")];
    let check = async |run: &str| {
        let all = of_run(
            &cluster,
            run,
            "jobs(first: 100) { totalCount nodes { id type status modelId error { code } } }",
        )
        .await["jobs"]
            .clone();
        let all_jobs = all["nodes"].as_array().unwrap();
        assert_eq!(all["totalCount"], all_jobs.len());
        assert!(
            all_jobs.is_sorted_by_key(|j| -j["id"].as_str().unwrap().parse::<i64>().unwrap()),
            "newest first"
        );
        let mut cases = Vec::new();
        for kind in &kinds {
            for status in &statuses {
                for model in &models {
                    for code in &codes {
                        let mut filter = Vec::new();
                        if let Some(kind) = kind {
                            filter.push(format!("type: {}", json!(kind)));
                        }
                        if let Some(status) = status {
                            filter.push(format!("status: [{}]", status.join(" ")));
                        }
                        if let Some(model) = model {
                            filter.push(format!("modelId: \"{model}\""));
                        }
                        if let Some(code) = code {
                            filter.push(format!("errorCode: \"{code}\""));
                        }
                        let ids: Vec<&Value> = all_jobs
                            .iter()
                            .filter(|j| kind.as_ref().is_none_or(|k| k.iter().any(|k| j["type"] == *k)))
                            .filter(|j| status.as_ref().is_none_or(|s| s.iter().any(|s| j["status"] == *s)))
                            .filter(|j| model.is_none_or(|m| j["modelId"] == m))
                            .filter(|j| {
                                code.is_none_or(|c| j["status"] == "FAILED" && j["error"]["code"] == c)
                            })
                            .map(|j| &j["id"])
                            .collect();
                        cases.push((filter.join(" "), ids));
                    }
                }
            }
        }
        // One request for many combinations, each under an alias.
        for cases in cases.chunks(40) {
            let field = |(n, (filter, _)): (usize, &(String, _))| {
                format!("f{n}: jobs(first: 20, filter: {{ {filter} }}) {{ totalCount nodes {{ id }} }}")
            };
            let fields: Vec<String> = cases.iter().enumerate().map(field).collect();
            let answer = of_run(&cluster, run, &fields.join(" ")).await;
            for (n, (filter, ids)) in cases.iter().enumerate() {
                let list = &answer[format!("f{n}")];
                let seen: Vec<&Value> = list["nodes"].as_array().unwrap().iter().map(|j| &j["id"]).collect();
                assert_eq!(&seen, ids, "{filter}");
                assert_eq!(list["totalCount"], ids.len(), "{filter}");
            }
        }
    };
    check(&run).await;
    check(&other).await;
    let cancel = "mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }";
    cluster.admin(cancel, json!({ "id": other })).await.data();
    cluster.until(&other, "at rest", |run| run["progress"]["active"] == 0).await;
    cluster
        .until(&other, "without analysis in motion", |run| {
            run["analyses"].as_array().unwrap().iter().all(|a| a["status"] == "COMPLETED")
        })
        .await;
    check(&other).await;
    cluster.stop().await;
}

#[tokio::test]
async fn jobs_and_transcripts_page_through_newest_first_each_once_and_first_is_capped() {
    let cluster = Cluster::with(&[("RUNLANE_PAGE_MAX", "5")]).await;
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/rater", "mock/echo"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    cluster.until(&run, "analysed", |run| run["analyses"][0]["status"] == "COMPLETED").await;
    for (list, node, n) in [("jobs", "id", 13), ("transcripts", "id", 12)] {
        for first in [1, 4, 5] {
            let query = format!(
                "query($first: Int!, $after: String) {{ run(id: \"{run}\") {{ {list}(first: $first, after: $after) {{ {} }} }} }}",
                connection(node)
            );
            let seen = pages(&cluster, &query, first, &["run", list], async || {}).await;
            let mut ids = super::texts(&json!(seen), "id");
            assert_eq!(ids.len(), n, "{list}");
            if list == "jobs" {
                assert!(ids.is_sorted_by_key(|id| -id.parse::<i64>().unwrap()), "newest first");
            }
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), n, "{list}: each once");
        }
        let capped = of_run(
            &cluster,
            &run,
            &format!("{list}(first: 1000) {{ totalCount nodes {{ id }} pageInfo {{ hasNextPage }} }}"),
        )
        .await[list]
            .clone();
        assert_eq!((capped["nodes"].as_array().unwrap().len(), &capped["totalCount"]), (5, &json!(n)));
        assert_eq!(capped["pageInfo"]["hasNextPage"], true);
    }
    let fields = "a: transcripts(modelId: \"mock/echo\") { totalCount nodes { modelId createdAt } }
                  b: transcripts(modelId: \"mock/none\") { totalCount nodes { modelId } }";
    let by_model = of_run(&cluster, &run, fields).await;
    assert_eq!(by_model["a"]["totalCount"], 6);
    let nodes = by_model["a"]["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|t| t["modelId"] == "mock/echo"));
    assert!(nodes.is_sorted_by(|a, b| a["createdAt"].as_str() >= b["createdAt"].as_str()));
    assert_eq!(by_model["b"], json!({"totalCount": 0, "nodes": []}));
    cluster.stop().await;
}
