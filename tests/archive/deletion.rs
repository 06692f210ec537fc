//! What is deleted is hidden at once, can be restored for a while, and then goes without a trace but the audit.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::{BY_HAND, archive, count, finished_run};
use crate::control::support::{act, did, is_analysis, mutation, probes, snapshot};
use crate::support::app::{Answer, Cluster, PATIENCE};
use crate::support::direct::Direct;

const DELETE: &str = "mutation($id: ID!) { it: deleteRun(id: $id) { id deletedAt deletedBy removedAfter } }";
const RESTORE: &str = "mutation($id: ID!) { it: restoreRun(id: $id) { id status } }";
const DELETE_DEFINITION: &str = "mutation($id: ID!) { it: deleteDefinition(id: $id) { id deletedBy } }";

async fn delete(cluster: &Cluster, who: &str, role: Role, id: &str) -> Answer {
    cluster.ask(who, role, DELETE, json!({ "id": id })).await
}

async fn runs(cluster: &Cluster, definition: &str) -> Value {
    let query = "query($id: ID!) { runs(filter: { definitionId: $id }) { totalCount nodes { id } }
                                   byStatus: runs(filter: { status: [COMPLETED] }) { totalCount }
                                   definition(id: $id) { runs { totalCount } } }";
    cluster.admin(query, json!({ "id": definition })).await.data().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_run_is_as_unknown_until_an_admin_restores_it() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    archive(&cluster, 10).await;
    let job = probes(&cluster, &run, "FAILED").await.remove(0);
    let definition =
        cluster.admin("query($id: ID!) { run(id: $id) { definitionId } }", json!({ "id": run })).await.data()
            ["run"]["definitionId"]
            .as_str()
            .unwrap()
            .to_owned();
    let before = (snapshot(&cluster, &run).await, runs(&cluster, &definition).await);

    assert_eq!(delete(&cluster, "bob", Role::User, &run).await.code(), "NOT_FOUND");
    assert_eq!(delete(&cluster, "eve", Role::Viewer, &run).await.code(), "FORBIDDEN");
    assert_eq!(runs(&cluster, &definition).await, before.1);
    let answer = delete(&cluster, "ada", Role::User, &run).await;
    assert_eq!((&answer.data()["it"]["id"], &answer.data()["it"]["deletedBy"]), (&json!(run), &json!("ada")));

    let gone = runs(&cluster, &definition).await;
    assert_eq!(
        gone,
        json!({ "runs": { "totalCount": 0, "nodes": [] }, "byStatus": { "totalCount": 0 },
                "definition": { "runs": { "totalCount": 0 } } })
    );
    assert_eq!(snapshot(&cluster, &run).await, Value::Null);
    let letters = cluster.admin("{ deadLetters { totalCount nodes { id } } }", json!({})).await;
    assert_eq!(letters.data()["deadLetters"], json!({ "totalCount": 0, "nodes": [] }));
    let found = cluster.admin("query($id: ID!) { job(id: $id) { id } }", json!({ "id": job })).await;
    assert_eq!(found.data()["job"], Value::Null);
    for (call, id) in [
        ("retryFailedJobs(runId: $id)", &run),
        ("startAnalysis(runId: $id, kind: DEEP)", &run),
        ("cancelRun(id: $id)", &run),
        ("retryJob(id: $id)", &job),
    ] {
        assert_eq!(act(&cluster, call, id).await.code(), "NOT_FOUND", "{call}");
        assert_eq!(cluster.admin(&mutation(call), json!({ "id": id })).await.code(), "NOT_FOUND", "{call}");
    }
    assert_eq!(delete(&cluster, "ada", Role::User, &run).await.code(), "NOT_FOUND");

    assert_eq!(cluster.user(RESTORE, json!({ "id": run })).await.code(), "FORBIDDEN");
    assert_eq!(cluster.admin(RESTORE, json!({ "id": run })).await.data()["it"]["status"], "COMPLETED");
    assert_eq!(
        cluster.admin(RESTORE, json!({ "id": run })).await.code(),
        "NOT_FOUND",
        "there is nothing to restore"
    );
    let mut after = (snapshot(&cluster, &run).await, runs(&cluster, &definition).await);
    assert_ne!(after.0["revision"], before.0["revision"]);
    after.0["revision"] = before.0["revision"].clone();
    assert_eq!(after, before);
    let acts: Vec<(String, String)> = sqlx::query_as(
        "select actor, action from audit where subject_id = $1 and action in ('deleteRun', 'restoreRun') order by id",
    )
    .bind(&run)
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let act = |who: &str, what: &str| (who.to_owned(), what.to_owned());
    assert_eq!(acts, [act("ada", "deleteRun"), act("root", "restoreRun")]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_ended_and_is_not_looked_into_can_be_deleted() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let definition = cluster.definition(2).await;
    let waiting = cluster.run(&definition, &["mock/echo"], json!({ "idempotencyKey": "again" })).await;
    let refused = delete(&cluster, "ada", Role::User, &waiting).await;
    assert_eq!((refused.code(), &refused.refusal()["action"]), ("RUN_STATE_ERROR", &json!("delete")));
    assert_eq!(refused.body["errors"][0]["message"], "Cannot delete run in PENDING state");
    let definition_refused = cluster.user(DELETE_DEFINITION, json!({ "id": definition })).await;
    assert_eq!(definition_refused.code(), "CONFLICT");

    let run = finished_run(&mut cluster).await;
    cluster.until(&waiting, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    sqlx::query(super::OPEN_DEAD_LETTER).execute(&cluster.db).await.unwrap();
    assert_eq!(delete(&cluster, "root", Role::Admin, &run).await.code(), "CONFLICT");
    super::resolve(&cluster).await;
    crate::control::support::queue(&cluster, "pauseQueue").await;
    did(&cluster, "startAnalysis(runId: $id, kind: DEEP)", &run).await;
    assert_eq!(delete(&cluster, "root", Role::Admin, &run).await.code(), "CONFLICT", "an analysis waits");
    crate::control::support::queue(&cluster, "resumeQueue").await;
    cluster.until(&run, "analysed deeply", |s| is_analysis(s, "DEEP", "COMPLETED")).await;
    delete(&cluster, "root", Role::Admin, &run).await.data();

    // The key of a deleted run starts no second one.
    delete(&cluster, "ada", Role::User, &waiting).await.data();
    let again = cluster.start_run(&definition, &["mock/echo"], json!({ "idempotencyKey": "again" })).await;
    assert_eq!(again.code(), "CONFLICT");
    assert_eq!(count(&cluster, "select count(*) from run").await, 2);

    let not_hers = cluster.ask("bob", Role::User, DELETE_DEFINITION, json!({ "id": definition })).await;
    assert_eq!(not_hers.code(), "FORBIDDEN");
    cluster.user(DELETE_DEFINITION, json!({ "id": definition })).await.data();
    assert_eq!(cluster.start_run(&definition, &["mock/echo"], json!({})).await.code(), "NOT_FOUND");
    let names = cluster.user("{ definitions { totalCount nodes { id } } }", json!({})).await;
    assert_eq!(names.data()["definitions"]["totalCount"], 1);
    assert_eq!(cluster.user(DELETE_DEFINITION, json!({ "id": definition })).await.code(), "NOT_FOUND");
    // What was drawn up before the deletion comes too late as well.
    let late = sqlx::query(
        "insert into run (id, batch_id, request_id, definition_id, definition_snapshot, models, params, priority,
                          sample_percentage, sample_seed, sample_algorithm, created_by)
         select gen_random_uuid(), gen_random_uuid(), 'r', $1::uuid, '{}', array['mock/a'], '{}', 5, 100, 1, 'a', 'ada'",
    )
    .bind(&definition)
    .execute(&cluster.db)
    .await
    .unwrap_err();
    assert_eq!(late.into_database_error().unwrap().constraint(), Some("run_definition_is_there"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_goes_in_small_steps_and_nothing_else_does() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let (run, other) = (finished_run(&mut cluster).await, finished_run(&mut cluster).await);
    archive(&cluster, 10).await;
    let kept = snapshot(&cluster, &other).await;
    let definition: String = sqlx::query_scalar("select definition_id::text from run where id = $1::uuid")
        .bind(&run)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
    delete(&cluster, "ada", Role::User, &run).await.data();
    cluster.user(DELETE_DEFINITION, json!({ "id": definition })).await.data();
    let step = async |what: &str, after: &str| -> i32 {
        let sql = format!("select remove_deleted_{what}('{after}', 7)");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&cluster.db).await.unwrap()
    };
    assert_eq!(step("run", "1 day").await, 0, "it can still be restored");
    assert_eq!(step("definition", "0").await, 0, "a run needs it");
    let checker = Direct::on(&cluster.url).await;
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        steps.push(step("run", "0").await);
        assert_eq!(checker.violations(true, &[]).await, [], "after {steps:?}");
        // What has begun to go is not whole any more.
        let restored = cluster.admin(RESTORE, json!({ "id": run })).await;
        assert_eq!(restored.code(), "NOT_FOUND", "after {steps:?}");
    }
    assert_eq!(steps, [7, 7, 7, 7, 7, 2, 0], "24 probes, an analysis, 11 dead letters and the run");
    assert_eq!((step("definition", "0").await, step("definition", "0").await), (7, 6));
    assert_eq!(step("definition", "0").await, 0);
    for left in [
        "select count(*) from current_job j where not exists (select from lane l where l.id = j.lane_id)",
        "select count(*) from archived_job j where not exists (select from lane l where l.id = j.lane_id)",
        "select count(*) from attempt a where not exists (select from current_job j where j.id = a.job_id)",
        "select count(*) from transcript t where not exists (select from current_job j where j.id = t.job_id)",
        "select count(*) from run where deleted_at is not null",
        "select count(*) from definition where deleted_at is not null",
    ] {
        assert_eq!(count(&cluster, left).await, 0, "{left}");
    }
    assert_eq!(
        count(&cluster, "select count(*) from audit where action in ('run.removed', 'definition.removed')")
            .await,
        2
    );
    assert_eq!(snapshot(&cluster, &other).await, kept);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_removes_by_itself() {
    let settings = [
        ("RUNLANE_MAINTENANCE_INTERVAL", "50ms"),
        ("RUNLANE_DELETE_AFTER", "0s"),
        ("RUNLANE_ARCHIVE_BATCH", "5"),
    ];
    let mut cluster = Cluster::api_only(&settings).await;
    let run = finished_run(&mut cluster).await;
    delete(&cluster, "ada", Role::User, &run).await.data();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while count(&cluster, "select (select count(*) from run) + (select count(*) from current_job)").await > 0
    {
        assert!(tokio::time::Instant::now() < deadline, "maintenance removes nothing");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.admin(RESTORE, json!({ "id": run })).await.code(), "NOT_FOUND");
    cluster.stop().await;
}
