//! What the tests of dead letters share.

use runlane::domain::Role;
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};

use crate::support::app::{Answer, Cluster};

/// Retries come at once, and little is retried.
pub const QUICK: [(&str, &str); 3] = [
    ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "1"),
    ("RUNLANE_RETRY_MAX_MS_PROBE_SCENARIO", "1"),
    ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "1"),
];

/// Fails at once, for good.
pub const REFUSED: &str = "mock/echo?fail=validation";

/// One entry as its row has it.
#[derive(Debug, Clone, FromRow)]
pub struct Entry {
    pub id: i64,
    pub epoch: i32,
    pub owner: String,
    pub model: Option<String>,
    pub reason: String,
    pub status: String,
    pub error_code: String,
    pub original_state: String,
    pub snapshot: Value,
    pub attempts: Value,
    pub metadata: Value,
    pub resolved_by: Option<String>,
}

/// All entries, oldest first.
pub async fn entries(db: &PgPool) -> Vec<Entry> {
    sqlx::query_as(
        "select id, epoch, owner, model, reason::text as reason, status::text as status, error_code,
                original_state::text as original_state, snapshot, attempts, metadata, resolved_by
           from dead_letter order by id",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

/// What must hold at any moment: a pending entry's job has failed in that epoch, and every failed job has an entry of
/// its epoch.
pub async fn assert_entries_match_jobs(db: &PgPool) {
    let wrong: Vec<String> = sqlx::query_scalar(
        "select format('entry %s is pending, job %s is %s in epoch %s', d.id, d.job_id, j.state, j.epoch)
           from dead_letter d left join current_job j on j.id = d.job_id
          where d.status = 'pending' and (j.state, j.epoch) is distinct from ('failed'::job_state, d.epoch)
         union all
         select format('job %s has failed and has no entry', j.id)
           from current_job j
          where j.state = 'failed'
            and not exists (select from dead_letter d where d.job_id = j.id and d.epoch = j.epoch)",
    )
    .fetch_all(db)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The acts of this name on record, oldest first: who, what it was done to, and what came of it.
pub async fn acts(db: &PgPool, action: &str) -> Vec<(String, String, Option<Value>, Option<String>)> {
    sqlx::query_as("select actor, subject_kind, after, note from audit where action = $1 order by id")
        .bind(action)
        .fetch_all(db)
        .await
        .unwrap()
}

/// Makes a run of `n` jobs that all fail for good; returns it when it has completed.
pub async fn failed_run(cluster: &Cluster, n: usize) -> String {
    let run = cluster.run(&cluster.definition(n).await, &[REFUSED], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    run
}

/// What the tests look at in an entry.
const ENTRY: &str =
    "id jobId runId type modelId reason status errorCode errorMessage fingerprint originalStatus epoch
    snapshot attempts metadata createdAt resolvedAt resolvedBy notes redrivenAt";

/// The entries that this person sees with this filter: the first page as it is answered.
pub async fn listed(cluster: &Cluster, who: (&str, Role), filter: Value) -> Value {
    let query = format!(
        "query($filter: DeadLetterFilter) {{ deadLetters(filter: $filter, first: 100) {{
            totalCount nodes {{ {ENTRY} }} byReason {{ reason count }}
            byFingerprint {{ fingerprint count errorCode exampleMessage exampleId }} }} }}"
    );
    let answer = cluster.ask(who.0, who.1, &query, json!({ "filter": filter })).await;
    answer.data()["deadLetters"].clone()
}

/// Closes an entry as this person.
pub async fn resolve(cluster: &Cluster, who: (&str, Role), id: &str, more: Value) -> Answer {
    let query = format!(
        "mutation($id: ID!, $resolution: DeadLetterResolution!, $notes: String, $metadata: JSON) {{
            resolveDeadLetter(id: $id, resolution: $resolution, notes: $notes, metadata: $metadata) {{ {ENTRY} }} }}"
    );
    let mut variables = json!({ "id": id });
    for (key, value) in more.as_object().unwrap() {
        variables[key] = value.clone();
    }
    cluster.ask(who.0, who.1, &query, variables).await
}

const REDRIVE: &str = "mutation($filter: DeadLetterFilter!, $rate: Int, $dry: Boolean! = false) {
    redriveDeadLetters(filter: $filter, ratePerMinute: $rate, dryRun: $dry) {
        matched redriven skipped { why count } runs finishesAt dryRun } }";

/// Redrives as this person.
pub async fn redrive(cluster: &Cluster, who: (&str, Role), variables: Value) -> Answer {
    cluster.ask(who.0, who.1, REDRIVE, variables).await
}

/// Redrives as `ada`, who owns the tests' runs; returns the report.
#[track_caller]
pub fn redriven(cluster: &Cluster, variables: Value) -> impl Future<Output = Value> + '_ {
    let at = std::panic::Location::caller();
    async move {
        let answer = redrive(cluster, ADA, variables).await;
        assert!(answer.body.get("errors").is_none(), "{at}: {}", answer.body);
        answer.body["data"]["redriveDeadLetters"].clone()
    }
}

/// The owner of the tests' runs.
pub const ADA: (&str, Role) = ("ada", Role::User);
