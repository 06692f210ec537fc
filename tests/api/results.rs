//! What runs returned, and how the queue stands.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::{control, of_run};
use crate::control::support::probes;
use crate::support::app::Cluster;

const QUEUE: &str = "{ queueStatus { id isPaused pausedAt pausedBy pauseReason totalPending totalActive totalCompleted totalFailed
    jobs { type pending active completed failed } } }";

async fn queue(cluster: &Cluster) -> Value {
    cluster.user(QUEUE, json!({})).await.data()["queueStatus"].clone()
}

/// One type's entry in queueStatus.
fn counts(kind: &str, [pending, active, completed, failed]: [i64; 4]) -> Value {
    json!({"type": kind, "pending": pending, "active": active, "completed": completed, "failed": failed})
}

#[tokio::test]
async fn a_finished_run_shows_what_its_probes_returned() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(3).await;
    let models = ["mock/rater", "mock/echo?fail=validation", "mock/echo"];
    let run = cluster
        .run(&definition, &models, json!({"name": "n", "experimentId": "e", "metadata": {"a": [1]}}))
        .await;
    let state = cluster
        .until(&run, "analysed", |run| {
            run["status"] == "COMPLETED" && run["analyses"][0]["status"] == "COMPLETED"
        })
        .await;
    let progress = &state["progress"];
    let of_model = |model: &str, completed: i64, failed: i64| json!({"modelId": model, "total": 3, "pending": 0, "active": 0, "completed": completed, "failed": failed, "cancelled": 0});
    assert_eq!(
        progress["byModel"],
        json!([of_model(models[0], 3, 0), of_model(models[1], 0, 3), of_model(models[2], 3, 0)])
    );
    assert_eq!(
        (&progress["completed"], &progress["failed"], &progress["percentComplete"]),
        (&json!(6), &json!(3), &json!(100.0))
    );
    assert!(state["startedAt"].as_str() <= state["completedAt"].as_str() && state["startedAt"].is_string());

    let fields = "name experimentId metadata costUsd estimatedTimeRemaining
        transcripts(modelId: \"mock/rater\") { nodes { runId scenarioId modelId modelVersion turns score costUsd usage latencyMs } }
        echo: transcripts(modelId: \"mock/echo\") { nodes { score turns } }
        jobs(first: 100, filter: {type: [\"probe:scenario\"]}) { nodes { id status completedAt attempt failures maxAttempts error { code message retryable }
            scenario { id } attempts { number nodeId startedAt endedAt outcome errorCode errorMessage durationMs } } }
        analyses { kind status result coverage warnings error { code } computedAt }";
    let seen = of_run(&cluster, &run, fields).await;
    assert_eq!(
        (&seen["name"], &seen["experimentId"], &seen["metadata"]),
        (&json!("n"), &json!("e"), &json!({"a": [1]}))
    );
    assert_eq!((&seen["costUsd"], &seen["estimatedTimeRemaining"]), (&Value::Null, &Value::Null));
    let transcripts = seen["transcripts"]["nodes"].as_array().unwrap();
    assert_eq!(transcripts.len(), 3);
    for transcript in transcripts {
        assert_eq!(transcript["runId"], run.as_str());
        assert!((1..=5).contains(&transcript["score"].as_i64().expect("a rating")), "{transcript}");
        let turn = &transcript["turns"][0];
        assert!(turn["prompt"].as_str().unwrap().contains("Rate option"), "{transcript}");
        assert!(
            turn["response"].as_str().unwrap().contains(&transcript["score"].to_string()),
            "{transcript}"
        );
        assert!(
            transcript["usage"]["input"].is_number() && transcript["usage"]["output"].is_number(),
            "{transcript}"
        );
        assert!(transcript["latencyMs"].as_i64().unwrap() >= 0);
        assert_eq!(transcript["costUsd"], Value::Null, "no price is known");
    }
    for job in seen["jobs"]["nodes"].as_array().unwrap() {
        let attempts = job["attempts"].as_array().unwrap();
        assert_eq!(
            (attempts.len(), &attempts[0]["number"], &job["attempt"]),
            (1, &json!(1), &json!(1)),
            "{job}"
        );
        let attempt = &attempts[0];
        assert!(
            attempt["nodeId"].is_string()
                && attempt["durationMs"].is_number()
                && attempt["endedAt"] == job["completedAt"],
            "{job}"
        );
        let failed = job["status"] == "FAILED";
        assert_eq!(attempt["outcome"], job["status"]);
        assert_eq!(
            (attempt["errorCode"] == "validation", job["error"]["code"] == "validation"),
            (failed, failed),
            "{job}"
        );
        assert_eq!((&job["failures"], &job["maxAttempts"]), (&json!(i32::from(failed)), &json!(4)));
    }
    let analysis = &seen["analyses"][0];
    assert_eq!((&analysis["kind"], &analysis["coverage"]["expected"]), (&json!("BASIC"), &json!(9)));
    assert_eq!(
        (&analysis["coverage"]["used"], &analysis["coverage"]["failed"]),
        (&json!(6), &json!(3)),
        "{analysis}"
    );
    assert!(
        analysis["result"].is_object() && analysis["computedAt"].is_string() && analysis["error"].is_null()
    );

    let tasks = async |limit: i32| {
        let field = format!(
            "recentTasks(limit: {limit}) {{ jobId scenarioId modelId status error completedAt attempts }}"
        );
        of_run(&cluster, &run, &field).await["recentTasks"].as_array().unwrap().clone()
    };
    let all = tasks(100).await;
    assert_eq!((all.len(), tasks(0).await.len()), (9, 0));
    assert!(all.is_sorted_by(|a, b| a["completedAt"].as_str() >= b["completedAt"].as_str()), "newest first");
    assert_eq!(tasks(4).await, all[..4]);
    assert_eq!(
        of_run(&cluster, &run, "recentTasks { jobId }").await["recentTasks"].as_array().unwrap().len(),
        5
    );
    for task in &all {
        assert_eq!(
            (task["status"] == "FAILED", &task["attempts"]),
            (task["error"].is_string(), &json!(1)),
            "{task}"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn an_attempt_in_progress_is_shown_and_a_run_that_does_not_move_has_no_estimate() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=60000", "mock/echo"], json!({})).await;
    cluster
        .until(&run, "half done", |run| run["progress"]["completed"] == 2 && run["progress"]["active"] == 2)
        .await;
    let fields = "progress { percentComplete } jobs(filter: {status: [RUNNING]}) { nodes { status startedAt completedAt waitingBecause
        attempts { number nodeId startedAt endedAt outcome errorCode stderrTail durationMs } } }";
    let seen = of_run(&cluster, &run, fields).await;
    assert_eq!(seen["progress"]["percentComplete"], 50.0);
    for job in seen["jobs"]["nodes"].as_array().unwrap() {
        let attempt = &job["attempts"][0];
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
        assert_eq!((&attempt["number"], &attempt["startedAt"]), (&json!(1), &job["startedAt"]));
        assert!(attempt["nodeId"].is_string() && attempt["startedAt"].is_string());
        for null in ["endedAt", "outcome", "errorCode", "stderrTail", "durationMs"] {
            assert!(attempt[null].is_null(), "{attempt}");
        }
        assert!(job["completedAt"].is_null() && job["waitingBecause"].is_null());
    }
    assert_eq!(queue(&cluster).await["jobs"][0], counts("probe:scenario", [0, 2, 2, 0]));

    let estimate =
        async || of_run(&cluster, &run, "estimatedTimeRemaining").await["estimatedTimeRemaining"].clone();
    assert!(estimate().await.as_i64().is_some_and(|s| s >= 0));
    control(&cluster, "pauseRun", &run).await;
    assert_eq!(estimate().await, Value::Null, "the run is paused");
    control(&cluster, "resumeRun", &run).await;
    assert!(estimate().await.is_number());
    cluster.admin("mutation { pauseQueue { isPaused } }", json!({})).await.data();
    assert_eq!(estimate().await, Value::Null, "the queue is paused");
    cluster.admin("mutation { resumeQueue { isPaused } }", json!({})).await.data();
    cluster
        .admin("mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }", json!({ "id": run }))
        .await
        .data();
    assert_eq!(estimate().await, Value::Null, "the run is cancelled");
    cluster.until(&run, "at rest", |run| run["progress"]["active"] == 0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_estimate_needs_a_result() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(2).await;
    let run = cluster.run(&definition, &["mock/echo?delayMs=60000"], json!({ "maxConcurrency": 1 })).await;
    cluster.until_status(&run, "RUNNING").await;
    let estimate =
        async || of_run(&cluster, &run, "estimatedTimeRemaining").await["estimatedTimeRemaining"].clone();
    assert_eq!(estimate().await, Value::Null);
    // Nobody has claimed it, so it took no time.
    let waiting = probes(&cluster, &run, "PENDING").await;
    let give_up = "mutation($id: ID!) { deadLetterJob(id: $id) { status } }";
    let answer = cluster.admin(give_up, json!({ "id": waiting[0] })).await;
    assert_eq!(answer.data()["deadLetterJob"], json!({ "status": "FAILED" }));
    assert_eq!(estimate().await, Value::Null);
    cluster
        .admin("mutation($id: ID!) { cancelRun(id: $id, mode: IMMEDIATE) { id } }", json!({ "id": run }))
        .await
        .data();
    cluster.stop().await;
}

#[tokio::test]
async fn an_empty_queue_is_zeros_and_three_types() {
    let cluster = Cluster::api_only(&[]).await;
    let zeros = |kind| counts(kind, [0; 4]);
    let empty = json!({"id": "queue", "isPaused": false, "pausedAt": null, "pausedBy": null, "pauseReason": null,
        "totalPending": 0, "totalActive": 0, "totalCompleted": 0, "totalFailed": 0,
        "jobs": [zeros("probe:scenario"), zeros("analyze:basic"), zeros("analyze:deep")]});
    assert_eq!(queue(&cluster).await, empty);
    let seen = cluster.ask("eve", Role::Viewer, QUEUE, json!({})).await;
    assert_eq!(seen.data()["queueStatus"], empty);
    cluster.stop().await;
}

#[tokio::test]
async fn the_queue_counts_what_waits_and_what_ended_in_the_last_24_hours_to_the_minute() {
    let mut cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(4).await;
    let run = cluster.run(&definition, &["mock/echo", "mock/echo?fail=validation"], json!({})).await;
    let status = queue(&cluster).await;
    assert_eq!(
        (&status["totalPending"], &status["jobs"][0]),
        (&json!(8), &counts("probe:scenario", [8, 0, 0, 0]))
    );
    control(&cluster, "pauseRun", &run).await;
    assert_eq!(queue(&cluster).await["totalPending"], 8, "paused jobs wait too");
    control(&cluster, "resumeRun", &run).await;
    cluster.add_node(&[]).await;
    cluster.until(&run, "analysed", |run| run["analyses"][0]["status"] == "COMPLETED").await;
    let status = queue(&cluster).await;
    assert_eq!(
        status["jobs"],
        json!([
            counts("probe:scenario", [0, 0, 4, 4]),
            counts("analyze:basic", [0, 0, 1, 0]),
            counts("analyze:deep", [0; 4])
        ])
    );
    assert_eq!((&status["totalCompleted"], &status["totalFailed"]), (&json!(5), &json!(4)));

    let minute = async || {
        let now: String = sqlx::query_scalar("select date_trunc('minute', clock_timestamp())::text")
            .fetch_one(&cluster.db)
            .await
            .unwrap();
        now
    };
    for (age_minutes, completed) in [(24 * 60 - 1, 5), (24 * 60, 0)] {
        // The edge moves with the clock: what is read must be of the minute that was written.
        loop {
            let before = minute().await;
            sqlx::query("update queue_minute set minute = date_trunc('minute', clock_timestamp()) - $1 * interval '1 minute'")
                .bind(f64::from(age_minutes))
                .execute(&cluster.db)
                .await
                .unwrap();
            let seen = queue(&cluster).await;
            if minute().await == before {
                assert_eq!(seen["totalCompleted"], completed, "{age_minutes} minutes ago");
                break;
            }
        }
    }
    cluster.stop().await;
}
