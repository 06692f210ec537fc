//! Runs that their own guard stopped. Nothing in the program does so yet: the database is brought to where it would be.

use serde_json::json;

use super::support::{counts, did, jobs, probes, queue};
use crate::support::app::Cluster;

/// Stops a run as its guard does: its probes' lanes are closed, which cancels what waits, and it is FAILED.
pub async fn stop(cluster: &Cluster, run: &str) {
    let run: uuid::Uuid = run.parse().unwrap();
    let mut transaction = cluster.db.begin().await.unwrap();
    for statement in [
        "update lane
            set cancelled = cancelled + pending, pending = 0, is_live = active > 0, is_open = false,
                closed_at = clock_timestamp(), is_settled = pending = 0, version = version + 1
          where run_id = $1 and kind = 'probe:scenario'",
        "update run
            set status = 'FAILED', completed_at = clock_timestamp(), paused_at = null, version = version + 1
          where id = $1",
    ] {
        sqlx::query(statement).bind(run).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// A run of 12 probes, of which 1 failed and 1 was cancelled by its owner before the guard stopped it with 10 waiting.
pub async fn stopped(cluster: &Cluster) -> String {
    let definition = cluster.definition(6).await;
    let models = ["mock/echo?failFirst=1&fail=validation&a=1", "mock/echo"];
    let run = cluster.run(&definition, &models, json!({ "maxConcurrency": 1 })).await;
    let first = probes(cluster, &run, "PENDING").await;
    let of_first = jobs(cluster, &run, json!({ "modelId": models[0] })).await.1;
    let failing = of_first.last().unwrap()["id"].as_str().unwrap().to_owned();
    // A single claim, by a node that dies with its work done.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "insert into node (id, name, version, lease_until, executes)
         values ('00000000-0000-7000-8000-000000000001', 'test', '0', 'infinity', true);
         update job set run_at = run_at - interval '1 hour' where id = {failing};
         update lane set priority = 50 where id = (select lane_id from current_job where id = {failing});
         select claim_jobs('00000000-0000-7000-8000-000000000001', array['probe:scenario']::job_kind[], array[1]);
         select end_attempts('00000000-0000-7000-8000-000000000001', array[{failing}], array[1],
                array['failed']::attempt_outcome[], array[0], array['validation'], array['as asked'], array[false],
                array[null::text], array[null::jsonb], array[null::jsonb], array[false], array[false]);
         delete from node;"
    )))
    .execute(&cluster.db)
    .await
    .unwrap();
    let cancelled = first.iter().find(|id| **id != failing).unwrap();
    did(cluster, "cancelJob(id: $id)", cancelled).await;
    assert_eq!(counts(&cluster.state(&run).await), [10, 0, 0, 1, 1]);
    stop(cluster, &run).await;
    assert_eq!(counts(&cluster.state(&run).await), [0, 0, 0, 1, 11]);
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_a_failed_run_makes_what_waited_wait_again() {
    let mut cluster = Cluster::api_only(&[]).await;
    let run = stopped(&cluster).await;
    let reopened = did(&cluster, "retryFailedJobs(runId: $id)", &run).await;
    assert_eq!(reopened["status"], "RUNNING");
    assert_eq!(reopened["completedAt"], json!(null));
    assert_eq!(counts(&reopened), [11, 0, 0, 0, 1], "what its owner cancelled stays cancelled");
    assert_eq!(jobs(&cluster, &run, json!({ "status": ["PENDING"] })).await.1.len(), 11);
    cluster.add_node(&[]).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 6, 5, 1], "the other five of the failing model had not been tried");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_does_not_depend_on_maintenance_and_one_job_is_enough() {
    let mut cluster = Cluster::api_only(&[]).await;
    let run = stopped(&cluster).await;
    queue(&cluster, "pauseQueue").await;
    cluster.add_node(&[("RUNLANE_MAINTENANCE_INTERVAL", "50ms")]).await;
    let waiting = "select count(*) from lane l join current_job j on j.lane_id = l.id
                    where l.run_id = $1 and j.state = 'pending' and l.kind = 'probe:scenario'";
    let deadline = tokio::time::Instant::now() + crate::support::app::PATIENCE;
    while super::support::number(&cluster, waiting, &run).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "maintenance rewrites no row");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let failed = probes(&cluster, &run, "FAILED").await;
    let job = did(&cluster, "retryJob(id: $id)", &failed[0]).await;
    assert_eq!(job["status"], "PENDING");
    let reopened = cluster.state(&run).await;
    assert_eq!(reopened["status"], "RUNNING");
    assert_eq!(counts(&reopened), [11, 0, 0, 0, 1]);
    queue(&cluster, "resumeQueue").await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    assert_eq!(counts(&done), [0, 0, 6, 5, 1], "the other five of the failing model had not been tried");
    cluster.stop().await;
}
