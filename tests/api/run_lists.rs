//! The lists of runs and definitions.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::lists::{connection, pages};
use super::{control, with_keys};
use crate::support::app::Cluster;

#[tokio::test]
async fn runs_and_definitions_page_through_each_once_also_while_some_are_added() {
    let cluster = Cluster::api_only(&[]).await;
    let (mut runs, mut definitions) = (Vec::new(), Vec::new());
    for i in 0..7 {
        definitions.insert(0, with_keys(&cluster, &format!("d{i}"), ["k".to_owned()]).await);
        runs.insert(0, cluster.run(&definitions[0], &["mock/echo"], json!({})).await);
    }
    for (list, ids) in [("runs", runs.clone()), ("definitions", definitions.clone())] {
        for first in [2, 3, 6] {
            let query = format!(
                "query($first: Int!, $after: String) {{ {list}(first: $first, after: $after) {{ {} }} }}",
                connection("id")
            );
            let before = cluster.user(&query, json!({"first": 100})).await.data()[list].clone();
            let before = super::texts(&before["nodes"], "id");
            assert!(before.ends_with(&ids));
            let added = async || {
                let definition = with_keys(&cluster, "new", ["k".to_owned()]).await;
                cluster.run(&definition, &["mock/echo"], json!({})).await;
            };
            let seen = pages(&cluster, &query, first, &[list], added).await;
            assert_eq!(
                super::texts(&json!(seen), "id"),
                before,
                "{list} by {first}: what was there, newest first"
            );
        }
    }
    let empty = "{ runs(filter: {createdBy: \"nobody\"}) { nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    assert_eq!(
        cluster.user(empty, json!({})).await.data()["runs"],
        json!({"nodes": [], "totalCount": 0, "pageInfo":
               {"hasNextPage": false, "hasPreviousPage": false, "startCursor": null, "endCursor": null}})
    );
    cluster.stop().await;
}

#[tokio::test]
async fn every_filter_of_runs_alone_and_combined_gives_just_those_and_their_number() {
    let cluster = Cluster::api_only(&[]).await;
    let definitions = [cluster.definition(1).await, cluster.definition(2).await];
    let start = "mutation($input: StartRunInput!) { startRun(input: $input) { id batchId } }";
    for i in 0..16 {
        let experiment = [json!("e1"), json!("e2"), Value::Null][i % 3].clone();
        let input =
            json!({"definitionId": definitions[i % 2], "models": ["mock/echo"], "experimentId": experiment});
        let subject = ["ada", "bob"][(i / 2) % 2];
        let run = cluster.ask(subject, Role::User, start, json!({ "input": input })).await.data()["startRun"]
            .clone();
        match i % 5 {
            0 => control(&cluster, "pauseRun", run["id"].as_str().unwrap()).await,
            1 => control(&cluster, "cancelRun", run["id"].as_str().unwrap()).await,
            _ => {}
        }
    }
    let fields = "totalCount nodes { id batchId status definitionId experimentId createdBy }";
    let all =
        cluster.admin(&format!("{{ runs(first: 100) {{ {fields} }} }}"), json!({})).await.data()["runs"]
            .clone();
    let all = all["nodes"].as_array().unwrap();
    assert_eq!(all.len(), 16);
    let statuses = [
        None,
        Some(json!(["PAUSED"])),
        Some(json!(["CANCELLED", "PENDING"])),
        Some(json!(["FAILED"])),
        Some(json!([])),
    ];
    let of_definition = [None, Some(json!(definitions[0])), Some(json!("nonsense"))];
    let experiments = [None, Some(json!("e1")), Some(json!("e9"))];
    let creators = [None, Some(json!("bob"))];
    let batches = [None, Some(all[3]["batchId"].clone())];
    let query = format!("query($filter: RunFilter) {{ runs(first: 100, filter: $filter) {{ {fields} }} }}");
    for status in &statuses {
        for definition in &of_definition {
            for experiment in &experiments {
                for creator in &creators {
                    for batch in &batches {
                        let one = [
                            ("definitionId", definition),
                            ("experimentId", experiment),
                            ("createdBy", creator),
                            ("batchId", batch),
                        ];
                        let mut filter = serde_json::Map::new();
                        for (name, value) in one {
                            filter.extend(value.clone().map(|v| (name.to_owned(), v)));
                        }
                        let expected: Vec<&Value> = all
                            .iter()
                            .filter(|r| filter.iter().all(|(name, value)| &r[name] == value))
                            .filter(|r| {
                                status.as_ref().is_none_or(|s| s.as_array().unwrap().contains(&r["status"]))
                            })
                            .collect();
                        filter.extend(status.clone().map(|s| ("status".to_owned(), s)));
                        let list =
                            cluster.admin(&query, json!({ "filter": filter })).await.data()["runs"].clone();
                        let seen: Vec<&Value> = list["nodes"].as_array().unwrap().iter().collect();
                        assert_eq!(seen, expected, "{filter:?}");
                        assert_eq!(list["totalCount"], expected.len(), "{filter:?}");
                    }
                }
            }
        }
    }
    let own = cluster.user("{ runs(first: 100) { totalCount nodes { createdBy } } }", json!({})).await.data()
        ["runs"]
        .clone();
    assert_eq!(own["totalCount"], 8, "a user lists its own");
    cluster.stop().await;
}

#[tokio::test]
async fn totals_without_a_counter_are_counted_up_to_the_configured_number_and_then_null() {
    let cluster = Cluster::api_only(&[("RUNLANE_COUNT_MAX", "100")]).await;
    let definition = with_keys(&cluster, "d", ["k".to_owned()]).await;
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    let total = async |list: &str| {
        cluster.user(&format!("{{ list: {list} {{ totalCount nodes {{ id }} }} }}"), json!({})).await.data()["list"]["totalCount"].clone()
    };
    let copies = async |from: i32, to: i32| {
        sqlx::query(
            "insert into run (id, batch_id, request_id, definition_id, definition_snapshot, models, params, priority,
                              sample_percentage, sample_seed, sample_algorithm, created_by)
             select gen_random_uuid(), gen_random_uuid(), '', definition_id, '{}', models, params, priority, 100, 0, '', 'ada'
               from (select * from run limit 1) as r, generate_series($1, $2)",
        )
        .bind(from)
        .bind(to)
        .execute(&cluster.db)
        .await
        .unwrap();
        sqlx::query(
            "insert into definition (id, name, version, content, scenario_count, created_by)
             select gen_random_uuid(), 'copy', n, '{}', 1, 'ada' from generate_series($1, $2) as n",
        )
        .bind(from)
        .bind(to)
        .execute(&cluster.db)
        .await
        .unwrap();
    };
    copies(1, 99).await;
    assert_eq!([total("runs").await, total("definitions").await], [json!(100), json!(100)]);
    copies(100, 100).await;
    assert_eq!([total("runs").await, total("definitions").await], [Value::Null, Value::Null]);
    assert_eq!(total("runs(filter: {status: [PENDING]})").await, Value::Null);
    assert_eq!(total("runs(filter: {status: [PAUSED]})").await, 0);
    assert_eq!(total("definitions(search: \"copy\")").await, 100);
    let pages = cluster
        .user("{ runs(first: 1000) { nodes { id } pageInfo { hasNextPage } } }", json!({}))
        .await
        .data()["runs"]
        .clone();
    assert_eq!(
        (pages["nodes"].as_array().unwrap().len(), &pages["pageInfo"]["hasNextPage"]),
        (100, &json!(true))
    );
    // What a run's counters cover is exact beyond that number.
    let large = with_keys(&cluster, "large", (0..150).map(|i| i.to_string())).await;
    let run = cluster.run(&large, &["mock/echo"], json!({})).await;
    let counted = super::of_run(&cluster, &run, "jobs { totalCount } scenarios { totalCount }").await;
    assert_eq!(counted, json!({"jobs": {"totalCount": 150}, "scenarios": {"totalCount": 150}}));
    cluster.stop().await;
}
