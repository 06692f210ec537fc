//! Samples as clients see them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{of_run, with_keys};
use crate::support::app::Cluster;

fn keys(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("k{i:03}")).collect()
}

/// The keys that a new run takes, and the run.
async fn sample(cluster: &Cluster, definition: &str, more: Value) -> (BTreeSet<String>, Value) {
    let run = cluster.run(definition, &["mock/echo"], more).await;
    let fields = "sampleSeed samplePercentage sampleAlgorithm progress { total } scenarios(first: 100) { totalCount nodes { key } }";
    let run = of_run(cluster, &run, fields).await;
    let keys: BTreeSet<String> = super::texts(&run["scenarios"]["nodes"], "key").into_iter().collect();
    assert_eq!(run["scenarios"]["totalCount"], keys.len());
    assert_eq!(run["progress"]["total"], keys.len());
    (keys, run)
}

#[tokio::test]
async fn the_same_seed_takes_the_same_sample_whatever_the_order_of_scenarios() {
    let cluster = Cluster::api_only(&[]).await;
    let forward = with_keys(&cluster, "forward", keys(60)).await;
    let backward = with_keys(&cluster, "backward", keys(60).into_iter().rev()).await;
    let input = json!({"samplePercentage": 20, "sampleSeed": 7});
    let (first, run) = sample(&cluster, &forward, input.clone()).await;
    assert_eq!((first.len(), &run["sampleSeed"]), (12, &json!(7)));
    assert_eq!(run["sampleAlgorithm"], "chacha-rank/v1");
    assert_eq!(sample(&cluster, &forward, input.clone()).await.0, first);
    assert_eq!(sample(&cluster, &backward, input).await.0, first);
    let (other, _) = sample(&cluster, &forward, json!({"samplePercentage": 20, "sampleSeed": 8})).await;
    assert_ne!(other, first);
    cluster.stop().await;
}

#[tokio::test]
async fn a_smaller_sample_lies_inside_a_larger_one() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = with_keys(&cluster, "d", keys(50)).await;
    let mut inner = BTreeSet::new();
    for percentage in [10, 20, 50, 100] {
        let (outer, _) =
            sample(&cluster, &definition, json!({"samplePercentage": percentage, "sampleSeed": 3})).await;
        assert_eq!(outer.len(), percentage / 2);
        assert!(inner.is_subset(&outer), "{inner:?} {outer:?}");
        inner = outer;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_drawn_seed_is_kept_and_repeats_the_sample() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = with_keys(&cluster, "d", keys(60)).await;
    let (first, run) = sample(&cluster, &definition, json!({"samplePercentage": 20})).await;
    let seed = run["sampleSeed"].as_i64().expect("a seed was drawn");
    assert!((0..=i64::from(i32::MAX)).contains(&seed));
    let (again, _) = sample(&cluster, &definition, json!({"samplePercentage": 20, "sampleSeed": seed})).await;
    assert_eq!(again, first);
    let (_, next) = sample(&cluster, &definition, json!({"samplePercentage": 20})).await;
    assert_ne!(next["sampleSeed"], run["sampleSeed"], "each run draws its own");
    cluster.stop().await;
}

#[tokio::test]
async fn a_sample_has_the_percentage_rounded_up_and_at_least_one() {
    let cluster = Cluster::api_only(&[]).await;
    for (n, percentage, k) in
        [(1, 1, 1), (7, 10, 1), (10, 10, 1), (11, 10, 2), (3, 50, 2), (7, 99, 7), (100, 29, 29)]
    {
        let definition = with_keys(&cluster, "d", keys(n)).await;
        let (taken, _) = sample(&cluster, &definition, json!({"samplePercentage": percentage})).await;
        assert_eq!(taken.len(), k, "{percentage} % of {n}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_run_has_a_job_for_each_scenario_and_model() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = with_keys(&cluster, "d", keys(10)).await;
    let models = ["mock/c", "mock/a", "mock/b"];
    let run = cluster.run(&definition, &models, json!({})).await;
    let run = of_run(&cluster, &run, "progress { total pending byModel { modelId total } } jobs(first: 100) { totalCount nodes { modelId scenario { key } } }").await;
    assert_eq!((&run["progress"]["total"], &run["progress"]["pending"]), (&json!(30), &json!(30)));
    let by_model: Vec<Value> = models.iter().map(|m| json!({"modelId": m, "total": 10})).collect();
    assert_eq!(run["progress"]["byModel"], json!(by_model), "in the order given");
    let jobs = run["jobs"]["nodes"].as_array().unwrap();
    let pairs: BTreeSet<String> =
        jobs.iter().map(|j| format!("{} {}", j["modelId"], j["scenario"]["key"])).collect();
    assert_eq!((jobs.len(), pairs.len()), (30, 30));
    cluster.stop().await;
}
