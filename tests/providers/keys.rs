//! Keys: in the environment of their own provider's workers, and nowhere else.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{KEYS, urls, workers};
use crate::support::app::{Cluster, python};
use crate::support::stub::Stub;

#[tokio::test]
async fn a_worker_gets_the_key_of_its_own_provider_and_an_analysis_none() {
    let stub = Stub::start();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let urls = urls(&stub);
    let mut settings: Vec<(&str, &str)> = KEYS.to_vec();
    settings.extend(urls.iter().map(|(name, url)| (*name, url.as_str())));
    settings.push(("RUNLANE_WORK_DIR", work.path().to_str().unwrap()));
    let cluster = Cluster::with(&settings).await;
    let definition = cluster.definition(1).await;
    let models = ["openai/rater?gate=1", "google/rater;gate=1", "mock/echo?delayMs=60000"];
    let run = cluster.run(&definition, &models, json!({})).await;
    stub.until_in_flight(2).await;
    cluster.until(&run, "all three running", |state| state["progress"]["active"] == 3).await;
    let mut held: Vec<Vec<String>> = workers(work.path())
        .iter()
        .map(|worker| {
            let names =
                worker.environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
            names.filter(|name| name.ends_with("_API_KEY")).map(str::to_owned).collect()
        })
        .collect();
    held.sort();
    assert_eq!(held, [vec![], vec!["GOOGLE_API_KEY".to_owned()], vec!["OPENAI_API_KEY".to_owned()]]);
    let cancel = "mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }";
    cluster.admin(cancel, json!({ "id": run })).await.data();
    cluster.stop().await;
}

#[tokio::test]
async fn a_key_that_a_provider_repeats_is_blanked_before_it_is_stored() {
    let stub = Stub::start();
    let cluster = Cluster::with(&[KEYS[0], ("OPENAI_BASE_URL", &stub.url())]).await;
    let definition = cluster.definition(1).await;
    let models = ["openai/rater?fail=validation&echoKey=1", "openai/echo?echoKey=1"];
    let run = cluster.run(&definition, &models, json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let response: String = sqlx::query_scalar("select turns -> 0 ->> 'response' from transcript")
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    assert_eq!(response, "Rate option 0 from 1 to 5. You called with the key [redacted].");
    let message: String =
        sqlx::query_scalar("select error_message from current_job where error_message is not null")
            .fetch_one(&cluster.db)
            .await
            .unwrap();
    assert!(message.contains("for the key [redacted]"), "{message}");
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert!(tables.len() > 10);
    for table in tables {
        let sql = format!("select count(*) from \"{table}\" t where t::text like '%' || $1 || '%'");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(KEYS[0].1)
            .fetch_one(&cluster.db)
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table} holds the key");
    }
    cluster.stop().await;
}

#[test]
fn server_and_workers_know_the_same_providers() {
    let mut theirs: Vec<String> = {
        let code = "from runlane_worker import providers; print('\\n'.join(providers.names()))";
        let output = Command::new(python()).args(["-c", code]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    let providers = runlane::domain::provider::PROVIDERS;
    let mut ours: Vec<&str> = providers.iter().map(|p| p.name).collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    assert_eq!(theirs, ours);
    // Each is found by the variables that the node sets.
    let hosted = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/src/runlane_worker/providers/hosted.py");
    let hosted = std::fs::read_to_string(hosted).unwrap();
    for access in providers.iter().filter_map(|p| p.access.as_ref()) {
        let prefix = access.key.strip_suffix("_API_KEY").unwrap();
        assert_eq!(access.base_url, format!("{prefix}_BASE_URL"));
        assert!(hosted.contains(&format!("\"{prefix}\"")), "{prefix}");
    }
}
