//! What the tests of control share.

use runlane::domain::Role;
use serde_json::{Value, json};

use crate::support::app::{Answer, Cluster, PATIENCE};

/// What a test looks at in a run.
const RUN: &str = "id status priority startedAt completedAt updatedAt revision costUsd
    progress { total pending active completed failed cancelled percentComplete
               byModel { modelId total pending active completed failed cancelled } }
    analyses { id kind status result coverage warnings error { code message retryable } computedAt }";

/// What a test looks at in a job.
const JOB: &str =
    "id type priority modelId status attempt maxAttempts failures losses throttles runAt startedAt
    completedAt error { code message retryable } waitingBecause
    attempts { number outcome errorCode startedAt endedAt }";

/// What a test looks at in the queue.
const QUEUE: &str =
    "id isPaused pausedAt pausedBy pauseReason totalPending totalActive totalCompleted totalFailed";

/// A probe that ends only when it is stopped.
pub const ENDLESS: &str = "mock/echo?delayMs=3600000";

/// A mutation by the call of its one field, as `pauseRun(id: $id)`; what it returns follows from its name.
pub fn mutation(call: &str) -> String {
    let field = call.split('(').next().expect("a name");
    let returns = match field {
        "cancelJob" | "retryJob" | "deadLetterJob" => JOB,
        "pauseQueue" | "resumeQueue" => QUEUE,
        _ => RUN,
    };
    let variables = if call.contains("$id") { "($id: ID!)" } else { "" };
    format!("mutation{variables} {{ it: {call} {{ {returns} }} }}")
}

/// Does this to something of `ada`'s as `ada`.
pub async fn act(cluster: &Cluster, call: &str, id: &str) -> Answer {
    cluster.user(&mutation(call), json!({ "id": id })).await
}

/// Does this as `ada`; returns what the mutation returned.
#[track_caller]
pub fn did<'a>(cluster: &'a Cluster, call: &'a str, id: &'a str) -> impl Future<Output = Value> + 'a {
    let at = std::panic::Location::caller();
    async move {
        let answer = act(cluster, call, id).await;
        assert!(answer.body.get("errors").is_none(), "{at}: {}", answer.body);
        answer.body["data"]["it"].clone()
    }
}

/// Does this to the queue as an admin; returns the queue's status.
pub async fn queue(cluster: &Cluster, call: &str) -> Value {
    cluster.admin(&mutation(call), json!({})).await.data()["it"].clone()
}

/// Everything that a client sees of a run and of its newest 100 jobs.
pub async fn snapshot(cluster: &Cluster, run: &str) -> Value {
    let query = format!(
        "query($id: ID!) {{ run(id: $id) {{ {RUN} jobs(first: 100) {{ totalCount nodes {{ {JOB} }} }} }} }}"
    );
    cluster.admin(&query, json!({ "id": run })).await.data()["run"].clone()
}

/// The jobs of a run that pass a filter: the total and the newest 100.
pub async fn jobs(cluster: &Cluster, run: &str, filter: Value) -> (i64, Vec<Value>) {
    let query = format!(
        "query($id: ID!, $filter: JobFilter) {{
            run(id: $id) {{ jobs(first: 100, filter: $filter) {{ totalCount nodes {{ {JOB} }} }} }} }}"
    );
    let answer = cluster.admin(&query, json!({ "id": run, "filter": filter })).await;
    let page = &answer.data()["run"]["jobs"];
    (page["totalCount"].as_i64().unwrap(), page["nodes"].as_array().unwrap().clone())
}

/// The ids of a run's probes in this status, newest first.
pub async fn probes(cluster: &Cluster, run: &str, status: &str) -> Vec<String> {
    let (_, jobs) = jobs(cluster, run, json!({ "status": [status], "type": ["probe:scenario"] })).await;
    jobs.iter().map(|j| j["id"].as_str().unwrap().to_owned()).collect()
}

/// A job as a client sees it.
pub async fn job(cluster: &Cluster, id: &str) -> Value {
    let query = format!("query($id: ID!) {{ job(id: $id) {{ {JOB} }} }}");
    cluster.ask("root", Role::Admin, &query, json!({ "id": id })).await.data()["job"].clone()
}

/// The analysis of this kind of a run as read by [`Cluster::state`] or [`snapshot`].
pub fn analysis<'a>(run: &'a Value, kind: &str) -> Option<&'a Value> {
    run["analyses"].as_array()?.iter().find(|a| a["kind"] == kind)
}

/// Whether the run has an analysis of this kind in this status.
pub fn is_analysis(run: &Value, kind: &str, status: &str) -> bool {
    analysis(run, kind).is_some_and(|a| a["status"] == status)
}

/// Pending, active, completed, failed, cancelled.
pub fn counts(run: &Value) -> [i64; 5] {
    ["pending", "active", "completed", "failed", "cancelled"].map(|c| run["progress"][c].as_i64().unwrap())
}

/// One number from the database.
pub async fn number(cluster: &Cluster, sql: &'static str, run: &str) -> i64 {
    let run: uuid::Uuid = run.parse().expect("a run's id");
    sqlx::query_scalar(sql).bind(run).fetch_one(&cluster.db).await.expect("the database answers")
}

/// Expected, used and failed records of the latest result of an analysis; none before the first.
pub fn coverage(run: &Value, kind: &str) -> Option<[i64; 3]> {
    let coverage = &analysis(run, kind)?["coverage"];
    Some(["expected", "used", "failed"].map(|c| coverage[c].as_i64().unwrap_or(-1)))
}

/// How often a probe of the run was claimed.
pub async fn claims(cluster: &Cluster, run: &str) -> i64 {
    number(
        cluster,
        "select coalesce(sum(j.claims), 0)::bigint from lane l join current_job j on j.lane_id = l.id
          where l.run_id = $1 and l.kind = 'probe:scenario'",
        run,
    )
    .await
}

/// Waits until every node has looked for work several times over: what none has begun by then, none begins. The test's
/// settings let a node look every 20 ms and renew its lease every 100 ms; the renewals are counted.
pub async fn looked(cluster: &Cluster) {
    let leases = async || -> Vec<(uuid::Uuid, chrono::DateTime<chrono::Utc>)> {
        sqlx::query_as("select id, lease_until from node order by id").fetch_all(&cluster.db).await.unwrap()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for _ in 0..4 {
        let before = leases().await;
        while leases().await.iter().zip(&before).any(|(now, then)| now == then) {
            assert!(tokio::time::Instant::now() < deadline, "the nodes no longer renew their leases");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// Settings of nodes that look for work all the time, as [`looked`] needs them.
pub const EAGER: [(&str, &str); 2] =
    [("RUNLANE_POLL_INTERVAL_MS", "20"), ("RUNLANE_LEASE_RENEWAL_MS", "100")];

/// The refusal of a run's action, checked whole.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: &str, action: &str, message: &str) {
    assert_eq!(answer.code(), "RUN_STATE_ERROR", "{}", answer.body);
    assert_eq!(answer.refusal()["currentStatus"], status, "{}", answer.body);
    assert_eq!(answer.refusal()["action"], action, "{}", answer.body);
    assert_eq!(answer.body["errors"][0]["message"], message, "{}", answer.body);
}
