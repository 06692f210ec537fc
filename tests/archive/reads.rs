//! Nobody can tell from what is read how much of a run is archived.

use serde_json::{Value, json};

use super::{BY_HAND, archive, count, finished_run, mismatches, pages};
use crate::control::support::snapshot;
use crate::support::app::Cluster;

const JOB: &str = "id type modelId status attempt failures runAt startedAt completedAt error { code message retryable }
    scenario { key } attempts { number nodeId startedAt endedAt outcome errorCode errorMessage stderrTail durationMs }";
const TRANSCRIPT: &str = "id scenarioId modelId modelVersion score costUsd latencyMs createdAt usage turns";

/// Everything that a client can read of a run.
async fn everything(cluster: &Cluster, run: &str) -> Value {
    let mut lists = Vec::new();
    for (list, fields) in [
        ("jobs(first: 5, after: $after)", JOB),
        ("jobs(first: 4, after: $after, filter: { status: [FAILED, CANCELLED] })", JOB),
        ("jobs(first: 4, after: $after, filter: { errorCode: \"validation\" })", JOB),
        ("jobs(first: 7, after: $after, filter: { modelId: \"mock/rater\", status: [COMPLETED] })", JOB),
        ("transcripts(first: 5, after: $after)", TRANSCRIPT),
        ("transcripts(first: 5, after: $after, modelId: \"mock/rater\")", TRANSCRIPT),
        ("scenarios(first: 5, after: $after)", "key prompt"),
    ] {
        lists.push(json!(pages(cluster, run, list, fields).await));
    }
    let tasks = cluster
        .admin(
            "query($id: ID!) { run(id: $id) { recentTasks(limit: 10) { jobId modelId status error completedAt attempts } } }",
            json!({ "id": run }),
        )
        .await;
    json!([lists, tasks.data(), snapshot(cluster, run).await])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_reads_the_same_hot_half_archived_and_archived() {
    let mut cluster = Cluster::api_only(&BY_HAND).await;
    let run = finished_run(&mut cluster).await;
    let hot = everything(&cluster, &run).await;
    assert_eq!(hot[0][0][0]["totalCount"], 25, "24 probes and an analysis");
    assert_eq!(hot[0][4][0]["totalCount"], 12);
    assert_eq!(hot[0][4][2]["nodes"].as_array().unwrap().len(), 2, "the last of 12 transcripts by 5");

    let mut moved = 0;
    for part in [5, 10, 4] {
        assert_eq!(archive(&cluster, part).await, part);
        moved += part;
        assert_eq!(count(&cluster, "select count(*) from archived_job").await, i64::from(moved));
        let half = everything(&cluster, &run).await;
        assert_eq!(half, hot, "with {moved} of 24 archived");
        assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    }
    assert_eq!(archive(&cluster, 1_000).await, 24 - moved);
    assert_eq!(archive(&cluster, 1_000).await, 0, "nothing is left");
    assert_eq!(everything(&cluster, &run).await, hot, "with all archived");
    assert_eq!(mismatches(&cluster).await, Vec::<String>::new());
    for table in [
        "select count(*) from attempt a where not exists (select from current_job j where j.id = a.job_id)",
        "select count(*) from transcript",
    ] {
        assert_eq!(count(&cluster, table).await, 0, "{table}");
    }

    let when = pages(&cluster, &run, "jobs(first: 100, after: $after)", "type archivedAt").await;
    for job in when[0]["nodes"].as_array().unwrap() {
        assert_eq!(job["archivedAt"].is_string(), job["type"] == "probe:scenario", "{job}");
    }
    // An analysis that is computed anew sees the archived probes.
    let before = crate::control::support::coverage(&cluster.state(&run).await, "BASIC");
    cluster
        .user("mutation($id: ID!) { startAnalysis(runId: $id, kind: DEEP) { id } }", json!({ "id": run }))
        .await
        .data();
    let deep = cluster
        .until(&run, "analysed deeply", |s| crate::control::support::is_analysis(s, "DEEP", "COMPLETED"))
        .await;
    assert_eq!(crate::control::support::coverage(&deep, "DEEP"), before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_has_a_place_for_every_column() {
    let cluster = Cluster::api_only(&BY_HAND).await;
    let missing: Vec<String> = sqlx::query_scalar(
        "select h.table_name || '.' || h.column_name
           from information_schema.columns h
          where h.table_name in ('job', 'transcript')
            -- Of what waits, of a claim in progress, and the transcript's names for what the job has.
            and (h.table_name, h.column_name) not in (('job', 'node_id'), ('job', 'claim_id'),
                                                       ('job', 'is_fresh'),
                                                       ('transcript', 'job_id'))
            and not exists (select from information_schema.columns a
                             where a.table_name = 'archived_job' and a.column_name = h.column_name
                               and a.data_type = h.data_type)
          union all
         select 'any_' || h.table_name || '.' || h.column_name
           from information_schema.columns h
          where h.table_name in ('job', 'attempt', 'transcript')
            and (h.table_name, h.column_name) not in (('job', 'claim_id'), ('job', 'is_fresh'))
            and not exists (select from information_schema.columns v
                             where v.table_name = 'any_' || h.table_name and v.column_name = h.column_name)",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert_eq!(missing, Vec::<String>::new());
    cluster.stop().await;
}
