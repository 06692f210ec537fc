//! What people ask for: the client hears no answer, asks again, and what it wanted has happened once.

use serde_json::{Value, json};

use super::support::{asked, at_rest, cluster, doomed};
use crate::control::support::ENDLESS;
use crate::queue::support::{jobs, until_sql};
use crate::support::app::Cluster;

/// Whether the commit has happened at this point.
fn is_after(point: &str) -> bool {
    point.ends_with(".after")
}

async fn again(cluster: &Cluster, query: &str, variables: Value) {
    cluster.user(query, variables).await.data();
}

async fn started(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(5).await;
    let query = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";
    let input =
        json!({ "input": { "definitionId": definition, "models": ["mock/echo"], "idempotencyKey": "once" } });
    asked(&cluster, doomed(&cluster, point), point, query, input.clone()).await;
    let runs: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(runs, i64::from(is_after(point)));
    let answer = cluster.user(query, input).await;
    let run = answer.data()["startRun"]["id"].as_str().unwrap().to_owned();
    let runs: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(runs, 1);
    cluster.add_node(&[]).await;
    at_rest(cluster, &run, "COMPLETED", [0, 0, 5, 0, 0]).await;
}

async fn cancelled(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(9).await;
    let run = cluster.run(&definition, &[ENDLESS], json!({})).await;
    let node = doomed(&cluster, point);
    cluster.until(&run, "active", |s| s["progress"]["active"] == 4).await;
    let query = "mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }";
    asked(&cluster, node, point, query, json!({ "id": run })).await;
    let state = cluster.state(&run).await;
    assert_eq!(state["status"], if is_after(point) { "CANCELLED" } else { "RUNNING" }, "{state:#}");
    again(&cluster, query, json!({ "id": run })).await;
    cluster.add_node(&[]).await;
    at_rest(cluster, &run, "CANCELLED", [0, 0, 0, 0, 9]).await;
}

async fn paused_or_resumed(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=100"], json!({})).await;
    let (pause, resume) = (
        "mutation($id: ID!) { pauseRun(id: $id) { id } }",
        "mutation($id: ID!) { resumeRun(id: $id) { id } }",
    );
    let id = json!({ "id": run });
    let was_paused = if point.starts_with("resume") {
        again(&cluster, pause, id.clone()).await;
        asked(&cluster, doomed(&cluster, point), point, resume, id.clone()).await;
        !is_after(point)
    } else {
        // Held, so that the run is not over before somebody can pause it.
        cluster.admin("mutation { pauseQueue { id } }", json!({})).await.data();
        asked(&cluster, doomed(&cluster, point), point, pause, id.clone()).await;
        cluster.admin("mutation { resumeQueue { id } }", json!({})).await.data();
        is_after(point)
    };
    let state = cluster.state(&run).await;
    assert_eq!(state["status"] == "PAUSED", was_paused, "{state:#}");
    if was_paused {
        again(&cluster, resume, id).await;
    }
    cluster.add_node(&[]).await;
    at_rest(cluster, &run, "COMPLETED", [0, 0, 5, 0, 0]).await;
}

/// Five jobs that failed and the analysis of that, without a node.
async fn failed(cluster: &mut Cluster) -> String {
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/echo?fail=validation"], json!({})).await;
    let node = crate::queue::support::Node::start(cluster, "work", &[]);
    cluster
        .until(&run, "failed and analysed", |s| {
            s["status"] == "COMPLETED" && s["analyses"][0]["status"] == "COMPLETED"
        })
        .await;
    drop(node);
    run
}

async fn retried(point: &str) {
    let mut cluster = cluster().await;
    let run = failed(&mut cluster).await;
    let one = jobs(&cluster.db, &run).await[0].id;
    let (query, id, retried) = if point.starts_with("retry-job") {
        ("mutation($id: ID!) { retryJob(id: $id) { id } }", json!({ "id": one.to_string() }), 1)
    } else if point.starts_with("redrive") {
        let query = "mutation($id: ID!) { redriveDeadLetters(filter: { runId: $id }) { redriven } }";
        (query, json!({ "id": run }), 5)
    } else {
        ("mutation($id: ID!) { retryFailedJobs(runId: $id) { id } }", json!({ "id": run }), 5)
    };
    asked(&cluster, doomed(&cluster, point), point, query, id.clone()).await;
    let epochs = "select sum(j.epoch) from current_job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario'";
    let begun: i64 = sqlx::query_scalar(epochs).fetch_one(&cluster.db).await.unwrap();
    assert_eq!(begun, if is_after(point) { retried } else { 0 });
    // Redriving a second time does nothing; the others are refused or would retry once more.
    if !is_after(point) || point.starts_with("redrive") {
        again(&cluster, query, id).await;
    }
    cluster.add_node(&[]).await;
    until_sql(
        &cluster.db,
        "run again",
        &format!("select ({epochs}) = {retried} and not exists (select from current_job where state in ('pending', 'active'))"),
    )
    .await;
    at_rest(cluster, &run, "COMPLETED", [0, 0, 0, 5, 0]).await;
}

async fn one_cancelled(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(5).await;
    // Only one node that dies at once could claim it.
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.admin("mutation { pauseQueue { id } }", json!({})).await.data();
    let one = jobs(&cluster.db, &run).await[0].id.to_string();
    let query = "mutation($id: ID!) { cancelJob(id: $id) { id } }";
    asked(&cluster, doomed(&cluster, point), point, query, json!({ "id": one })).await;
    let cancelled = cluster.state(&run).await["progress"]["cancelled"].as_i64();
    assert_eq!(cancelled, Some(i64::from(is_after(point))));
    if !is_after(point) {
        again(&cluster, query, json!({ "id": one })).await;
    }
    cluster.admin("mutation { resumeQueue { id } }", json!({})).await.data();
    cluster.add_node(&[]).await;
    at_rest(cluster, &run, "COMPLETED", [0, 0, 4, 0, 1]).await;
}

async fn given_up(point: &str) {
    let mut cluster = cluster().await;
    let definition = cluster.definition(5).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.admin("mutation { pauseQueue { id } }", json!({})).await.data();
    let one = jobs(&cluster.db, &run).await[0].id.to_string();
    let query = "mutation($id: ID!) { deadLetterJob(id: $id) { id } }";
    asked(&cluster, doomed(&cluster, point), point, query, json!({ "id": one })).await;
    let letters: i64 =
        sqlx::query_scalar("select count(*) from dead_letter").fetch_one(&cluster.db).await.unwrap();
    assert_eq!(letters, i64::from(is_after(point)));
    if !is_after(point) {
        again(&cluster, query, json!({ "id": one })).await;
    }
    cluster.admin("mutation { resumeQueue { id } }", json!({})).await.data();
    cluster.add_node(&[]).await;
    at_rest(cluster, &run, "COMPLETED", [0, 0, 4, 1, 0]).await;
}

macro_rules! at {
    ($($name:ident: $act:ident($point:literal);)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $act($point).await;
            }
        )*
    };
}

at! {
    before_a_run_is_inserted: started("start.before");
    after_a_run_is_inserted: started("start.after");
    before_a_cancel_commits: cancelled("cancel.before");
    after_a_cancel: cancelled("cancel.after");
    before_a_pause_commits: paused_or_resumed("pause.before");
    after_a_pause: paused_or_resumed("pause.after");
    before_a_resume_commits: paused_or_resumed("resume.before");
    after_a_resume: paused_or_resumed("resume.after");
    before_a_retry_commits: retried("retry.before");
    after_a_retry: retried("retry.after");
    before_the_retry_of_a_job_commits: retried("retry-job.before");
    after_the_retry_of_a_job: retried("retry-job.after");
    before_a_redrive_commits: retried("redrive.before");
    after_a_redrive: retried("redrive.after");
    before_a_dead_letter_commits: given_up("bury.before");
    after_a_dead_letter: given_up("bury.after");
    before_the_cancel_of_a_job_commits: one_cancelled("cancel-job.before");
    after_the_cancel_of_a_job: one_cancelled("cancel-job.after");
}
