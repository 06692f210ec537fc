//! Looking at dead letters, and closing them by hand.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::support::{
    ADA, QUICK, acts, assert_entries_match_jobs, entries, failed_run, listed, redrive, resolve,
};
use crate::control::support::{did, probes, snapshot};
use crate::support::app::Cluster;

const BOB: (&str, Role) = ("bob", Role::User);
const ROOT: (&str, Role) = ("root", Role::Admin);
const EVE: (&str, Role) = ("eve", Role::Viewer);

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_by_every_filter_and_counted_by_reason_and_fingerprint() {
    let cluster = Cluster::with(&QUICK).await;
    let models = ["mock/echo?fail=validation", "mock/echo?failFirst=9"];
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &models, json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let other = cluster.run(&cluster.definition(1).await, &models[..1], json!({})).await;
    cluster.until_status(&other, "COMPLETED").await;

    let all = listed(&cluster, ADA, json!({})).await;
    assert_eq!(all["totalCount"], 7);
    assert_eq!(
        all["byReason"],
        json!([{ "reason": "NON_RETRYABLE", "count": 4 }, { "reason": "MAX_RETRIES_EXCEEDED", "count": 3 }])
    );
    let causes = all["byFingerprint"].as_array().unwrap();
    assert_eq!((causes.len(), &causes[0]["count"], &causes[1]["count"]), (2, &json!(4), &json!(3)));
    assert_eq!((&causes[0]["errorCode"], &causes[1]["errorCode"]), (&json!("validation"), &json!("network")));
    assert!(!causes[0]["exampleMessage"].as_str().unwrap().is_empty());
    let ids: Vec<i64> =
        all["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap().parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first: {ids:?}");

    let newest = all["nodes"][0]["createdAt"].clone();
    let filters = [
        (json!({ "runId": run }), 6),
        (json!({ "runId": "nonsense" }), 0),
        (json!({ "reason": "MAX_RETRIES_EXCEEDED" }), 3),
        (json!({ "reason": [] }), 0),
        (json!({ "status": ["PENDING"] }), 7),
        (json!({ "status": ["CANCELLED", "MANUALLY_RESOLVED"] }), 0),
        (json!({ "fingerprint": causes[0]["fingerprint"] }), 4),
        (json!({ "errorCode": "network" }), 3),
        (json!({ "modelId": models[0] }), 4),
        (json!({ "definitionId": definition }), 6),
        (json!({ "createdAfter": newest }), 1),
        (json!({ "createdBefore": newest }), 6),
        (json!({ "modelId": models[0], "runId": run, "reason": "NON_RETRYABLE" }), 3),
    ];
    for (filter, expected) in filters {
        let found = listed(&cluster, ADA, filter.clone()).await;
        assert_eq!(found["totalCount"], expected, "{filter}");
        assert_eq!(found["nodes"].as_array().unwrap().len(), expected, "{filter}");
    }
    let job = all["nodes"][0]["jobId"].as_str().unwrap();
    let of_job = cluster
        .user("query($id: ID!) { job(id: $id) { deadLetters { id reason } } }", json!({ "id": job }))
        .await;
    assert_eq!(of_job.data()["job"]["deadLetters"][0]["id"], all["nodes"][0]["id"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolving_says_who_and_why_and_never_touches_the_job() {
    let cluster = Cluster::start().await;
    let run = failed_run(&cluster, 3).await;
    cluster.until(&run, "analysed", |s| crate::control::support::is_analysis(s, "BASIC", "COMPLETED")).await;
    let before = snapshot(&cluster, &run).await;
    let ids: Vec<String> = entries(&cluster.db).await.iter().map(|e| e.id.to_string()).collect();

    let more =
        json!({ "resolution": "MANUALLY_RESOLVED", "notes": "asked\nagain", "metadata": { "ticket": 17 } });
    let answer = resolve(&cluster, ADA, &ids[0], more.clone()).await;
    let closed = &answer.data()["resolveDeadLetter"];
    assert_eq!((&closed["status"], &closed["resolvedBy"]), (&json!("MANUALLY_RESOLVED"), &json!("ada")));
    assert_eq!((&closed["notes"], &closed["metadata"]), (&json!("asked\nagain"), &json!({ "ticket": 17 })));
    assert!(closed["resolvedAt"].is_string() && closed["redrivenAt"].is_null());

    // The same again is no error and keeps the first; another way is a conflict.
    let again =
        resolve(&cluster, ROOT, &ids[0], json!({ "resolution": "MANUALLY_RESOLVED", "notes": "x" })).await;
    assert_eq!(&again.data()["resolveDeadLetter"], closed);
    let other = resolve(&cluster, ADA, &ids[0], json!({ "resolution": "CANCELLED" })).await;
    assert_eq!(other.code(), "CONFLICT");
    for (id, resolution) in [(&ids[1], "PERMANENTLY_FAILED"), (&ids[2], "CANCELLED")] {
        let answer = resolve(&cluster, ROOT, id, json!({ "resolution": resolution })).await;
        assert_eq!(answer.data()["resolveDeadLetter"]["status"], resolution);
    }
    assert_eq!(snapshot(&cluster, &run).await, before, "the run and its jobs are as they were");
    assert_entries_match_jobs(&cluster.db).await;
    let recorded = acts(&cluster.db, "resolveDeadLetter").await;
    let who: Vec<&str> = recorded.iter().map(|(who, ..)| who.as_str()).collect();
    assert_eq!(who, ["ada", "root", "root"]);
    assert_eq!(recorded[0].3.as_deref(), Some("asked\nagain"));

    // A closed entry is not redriven; its job can be retried.
    let report = redrive(&cluster, ADA, json!({ "filter": { "runId": run } })).await;
    assert_eq!(report.data()["redriveDeadLetters"]["matched"], 0);
    did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(entries(&cluster.db).await[2].status, "cancelled", "what was closed stays so");
    cluster.until_status(&run, "COMPLETED").await;
    let kept = entries(&cluster.db).await;
    assert_eq!((kept.len(), kept[3].epoch, kept[3].status.as_str()), (6, 1, "pending"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_for_the_owner_and_those_who_see_all_and_bad_input_changes_nothing() {
    let cluster = Cluster::start().await;
    let run = failed_run(&cluster, 1).await;
    let id = entries(&cluster.db).await[0].id.to_string();
    let one = "query($id: ID!) { deadLetter(id: $id) { id } }";
    for (who, sees) in [(ADA, true), (BOB, false), (ROOT, true), (EVE, true)] {
        let list = listed(&cluster, who, json!({ "runId": run })).await;
        assert_eq!(list["totalCount"], i32::from(sees), "{who:?}");
        assert_eq!(list["byReason"].as_array().unwrap().len(), usize::from(sees), "{who:?}");
        assert_eq!(list["byFingerprint"].as_array().unwrap().len(), usize::from(sees), "{who:?}");
        let answer = cluster.ask(who.0, who.1, one, json!({ "id": id })).await;
        assert_eq!(answer.data()["deadLetter"].is_null(), !sees, "{who:?}");
    }
    for unknown in ["0", "nonsense", ""] {
        assert!(cluster.user(one, json!({ "id": unknown })).await.data()["deadLetter"].is_null());
        let answer = resolve(&cluster, ADA, unknown, json!({ "resolution": "CANCELLED" })).await;
        assert_eq!(answer.code(), "NOT_FOUND", "{unknown:?}");
    }
    let cancelled = json!({ "resolution": "CANCELLED" });
    assert_eq!(resolve(&cluster, BOB, &id, cancelled.clone()).await.code(), "NOT_FOUND");
    assert_eq!(resolve(&cluster, EVE, &id, cancelled).await.code(), "FORBIDDEN");
    let everything = json!({ "filter": {} });
    assert_eq!(redrive(&cluster, EVE, everything.clone()).await.code(), "FORBIDDEN");
    let others = redrive(&cluster, BOB, everything).await;
    assert_eq!(others.data()["redriveDeadLetters"]["matched"], 0, "nobody redrives another's");

    let wrong = [
        (json!({ "notes": "x".repeat(4_001) }), "notes"),
        (json!({ "notes": "a\0" }), "notes"),
        (json!({ "metadata": [1] }), "metadata"),
        (json!({ "metadata": { "x": "y".repeat(20_000) } }), "metadata"),
    ];
    for (mut more, field) in wrong {
        more["resolution"] = json!("CANCELLED");
        let answer = resolve(&cluster, ADA, &id, more).await;
        assert_eq!((answer.code(), &answer.refusal()["field"]), ("VALIDATION_ERROR", &json!(field)));
    }
    for rate in [0, -1, 1_000_001] {
        let answer = redrive(&cluster, ADA, json!({ "filter": {}, "rate": rate })).await;
        assert_eq!(
            (answer.code(), &answer.refusal()["field"]),
            ("VALIDATION_ERROR", &json!("ratePerMinute"))
        );
    }
    let answer = redrive(&cluster, ADA, json!({ "filter": { "errorCode": "" } })).await;
    assert_eq!(answer.refusal()["field"], "filter.errorCode");
    assert_eq!(entries(&cluster.db).await[0].status, "pending");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_given_up_by_hand_and_only_a_waiting_one() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    let ids = probes(&cluster, &run, "PENDING").await;
    let give_up = "mutation($id: ID!, $notes: String) { deadLetterJob(id: $id, notes: $notes) { status error { code message } } }";
    let answer = cluster.user(give_up, json!({ "id": ids[0], "notes": "costs too much" })).await;
    let expected: Value = json!({
        "status": "FAILED",
        "error": { "code": "manual_dlq", "message": "ada gave it up: costs too much" },
    });
    assert_eq!(answer.data()["deadLetterJob"], expected);
    let again = cluster.user(give_up, json!({ "id": ids[0] })).await;
    assert_eq!(again.code(), "JOB_VALIDATION_ERROR");
    assert_eq!(again.refusal()["action"], "deadLetter");

    let kept = listed(&cluster, ADA, json!({ "reason": "MANUAL_DLQ" })).await;
    assert_eq!((&kept["totalCount"], &kept["nodes"][0]["originalStatus"]), (&json!(1), &json!("PENDING")));
    assert_eq!(kept["nodes"][0]["metadata"], json!({ "by": "ada", "notes": "costs too much" }));
    assert_eq!(acts(&cluster.db, "job.dead_letter").await[0].0, "ada");
    assert_entries_match_jobs(&cluster.db).await;
    cluster.stop().await;
}
