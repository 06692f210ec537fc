//! What people do when the answer to their COMMIT is lost.

use serde_json::{Value, json};

use super::support::{PATIENT, assert_exact, harms, number};
use crate::support::app::Cluster;
use crate::support::proxy::{Proxy, work};

/// How often each harm comes; silence, which takes its time, comes once.
const TIMES: u32 = 4;

/// Every harm for this work, one after the other. Returns how often it was acted.
async fn each(proxy: &Proxy, work: &'static str, mut act: impl AsyncFnMut()) -> i64 {
    let mut acts = 0;
    for harm in harms(work) {
        for _ in 0..if harm.is_silent() { 1 } else { TIMES } {
            let struck = proxy.strike(harm);
            act().await;
            assert_eq!(struck.count(), 1, "{harm:?} has come");
            acts += 1;
        }
    }
    acts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_that_is_answered_exists_and_no_other_does() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(3).await;
    let mut ids = Vec::new();
    let mut started = each(&proxy, work::START, async || {
        ids.push(cluster.run(&definition, &["mock/echo"], json!({})).await);
    })
    .await;
    started += each(&proxy, work::START, async || {
        let key = json!({ "idempotencyKey": format!("key-{}", ids.len()) });
        let id = cluster.run(&definition, &["mock/echo"], key.clone()).await;
        assert_eq!(cluster.run(&definition, &["mock/echo"], key).await, id, "the key leads to the same run");
        ids.push(id);
    })
    .await;
    assert_eq!(number(&cluster.db, "select count(*) from run").await, started);
    for id in &ids {
        cluster.until_status(id, "COMPLETED").await;
    }
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

/// Runs the mutation under every harm, each time on a fresh run; panics unless each is answered without an error.
/// Returns the runs.
async fn each_run(
    cluster: &Cluster,
    proxy: &Proxy,
    work: &'static str,
    model: &str,
    mutation: &str,
    ready: impl Fn(&Value) -> bool + Send + Copy,
) -> Vec<String> {
    let definition = cluster.definition(3).await;
    let mut runs = Vec::new();
    each(proxy, work, async || {
        let run = cluster.run(&definition, &[model], json!({})).await;
        cluster.until(&run, "ready", ready).await;
        runs.push(run);
        cluster.user(mutation, json!({ "id": runs.last() })).await.data();
    })
    .await;
    runs
}

/// How often the audit says that a run of theirs came to this.
async fn recorded(cluster: &Cluster, action: &str) -> i64 {
    sqlx::query_scalar("select count(*) from audit where action = $1 and actor = 'ada'")
        .bind(action)
        .fetch_one(&cluster.db)
        .await
        .unwrap()
}

const EACH: i64 = 3 * TIMES as i64 + 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_resume_happen_once_each() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    let pause = "mutation($id: ID!) { pauseRun(id: $id) { status } }";
    let runs =
        each_run(&cluster, &proxy, work::PAUSE, "mock/echo", pause, |s| s["status"] == "PENDING").await;
    assert_eq!(recorded(&cluster, "run.paused").await, EACH);
    let mut paused = runs.iter();
    each(&proxy, work::PAUSE, async || {
        let id = paused.next().expect("as many as were paused");
        let resume = "mutation($id: ID!) { resumeRun(id: $id) { status } }";
        let answer = cluster.user(resume, json!({ "id": id })).await;
        assert_eq!(answer.data()["resumeRun"]["status"], "RUNNING");
    })
    .await;
    assert_eq!(recorded(&cluster, "run.running").await, EACH);
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_a_priority_happen_once() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    let cancel = "mutation($id: ID!) { cancelRun(id: $id) { status } }";
    let runs =
        each_run(&cluster, &proxy, work::CANCEL, "mock/echo", cancel, |s| s["status"] == "PENDING").await;
    for run in &runs {
        assert_eq!(cluster.state(run).await["progress"]["cancelled"], 3);
    }
    let prefer = "mutation($id: ID!) { setRunPriority(id: $id, priority: HIGH) { status } }";
    let preferred =
        each_run(&cluster, &proxy, work::PRIORITY, "mock/echo", prefer, |s| s["status"] == "PENDING").await;
    for run in &preferred {
        assert_eq!(cluster.state(run).await["priority"], "HIGH");
    }
    assert_eq!(recorded(&cluster, "run.cancelled").await, EACH);
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_makes_one_epoch() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let retry = "mutation($id: ID!) { retryFailedJobs(runId: $id) { status } }";
    let completed = |s: &Value| s["status"] == "COMPLETED";
    let failing = "mock/echo?fail=validation";
    let runs = each_run(&cluster, &proxy, work::RETRY, failing, retry, completed).await;
    for run in &runs {
        let state = cluster.until_status(run, "COMPLETED").await;
        assert_eq!(state["progress"]["failed"], 3);
    }
    let epochs =
        "select count(*) from current_job where scenario_id is not null and (epoch <> 1 or claims <> 2)";
    assert_eq!(number(&cluster.db, epochs).await, 0);
    assert_eq!(recorded(&cluster, "run.running").await, EACH);
    assert_exact(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_muted_inside_a_transaction_does_not_hold_the_queue_up() {
    let (cluster, proxy) = Cluster::behind_proxy(&PATIENT).await;
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    // The server's session stays inside the transaction, and holds the gate.
    each(&proxy, work::QUEUE, async || {
        cluster.admin("mutation { resumeQueue { isPaused } }", json!({})).await.data();
    })
    .await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    cluster.stop().await;
}
