//! Results that the database refuses.

use std::path::Path;

use serde_json::json;

use super::support::{assert_books_balance, attempts, jobs, quick};
use crate::support::app::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_database_refuses_fails_its_own_job_only() {
    let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queue/workers/unstorable.py");
    let cluster = Cluster::with(&quick(&[("RUNLANE_PYTHON", worker.to_str().unwrap())])).await;
    let definition = cluster.definition(8).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let state = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(
        (state["progress"]["completed"].as_i64(), state["progress"]["failed"].as_i64()),
        (Some(6), Some(2)),
        "{:#?}",
        attempts(&cluster.db).await
    );
    let jobs = jobs(&cluster.db, &run).await;
    for (i, job) in jobs.iter().enumerate() {
        if i == 3 || i == 5 {
            assert_eq!((job.state.as_str(), job.error_code.as_deref()), ("failed", Some("invalid_response")));
            assert_eq!((job.claims, job.failures), (2, 2), "an invalid response is retried once");
        } else {
            assert_eq!((job.state.as_str(), job.claims), ("completed", 1), "{job:?}");
        }
    }
    assert_eq!(attempts(&cluster.db).await.len(), 10);
    let read = cluster
        .admin(
            "query($id: ID!) { run(id: $id) { transcripts(first: 100) { nodes { turns } } } }",
            json!({ "id": run }),
        )
        .await;
    let transcripts = read.data()["run"]["transcripts"]["nodes"].as_array().unwrap();
    assert_eq!(transcripts.len(), 6);
    assert!(
        transcripts.iter().all(|t| t["turns"][1]["response"] == "a\0b"),
        "an answer is kept as it was given: {transcripts:?}"
    );
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
