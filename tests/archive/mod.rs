//! The archive: what goes into it, what is read and retried from it, and how it goes.

mod deletion;
mod moving;
mod purge;
mod reads;
mod retry;

use serde_json::{Value, json};

use crate::control::support::{counts, is_analysis, queue};
use crate::support::app::Cluster;

/// Nothing is archived unless a test does it.
pub const BY_HAND: [(&str, &str); 1] = [("RUNLANE_ARCHIVE_ENABLED", "false")];

/// A finished run with jobs in every final state: 12 completed, 11 failed, 1 cancelled.
pub async fn finished_run(cluster: &mut Cluster) -> String {
    let models = ["mock/rater", "mock/echo?fail=validation&failFirst=1"];
    queue(cluster, "pauseQueue").await;
    let run = cluster.run(&cluster.definition(12).await, &models, json!({})).await;
    let (_, jobs) = crate::control::support::jobs(cluster, &run, json!({ "modelId": models[1] })).await;
    let answer = cluster
        .user("mutation($id: ID!) { cancelJob(id: $id) { status } }", json!({ "id": jobs[4]["id"] }))
        .await;
    assert_eq!(answer.data()["cancelJob"]["status"], "CANCELLED");
    queue(cluster, "resumeQueue").await;
    if count(cluster, "select count(*) from node").await == 0 {
        cluster.add_node(&[]).await;
    }
    let done = cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    assert_eq!(counts(&done), [0, 0, 12, 11, 1]);
    resolve(cluster).await;
    run
}

/// Somebody has looked into every dead letter.
pub async fn resolve(cluster: &Cluster) {
    sqlx::query(
        "update dead_letter set status = 'permanently_failed', resolved_at = now(), resolved_by = 'root'
          where status = 'pending'",
    )
    .execute(&cluster.db)
    .await
    .unwrap();
}

/// Somebody is to look into one dead letter (again).
pub const OPEN_DEAD_LETTER: &str =
    "update dead_letter set status = 'pending', resolved_at = null, resolved_by = null
      where id = (select min(id) from dead_letter where redriven_at is null)";

/// One step of the archive over all runs that have ended; returns how many jobs it moved.
pub async fn archive(cluster: &Cluster, batch: i32) -> i32 {
    sqlx::query_scalar("select archive_jobs('0', $1)").bind(batch).fetch_one(&cluster.db).await.unwrap()
}

/// One number from the database.
pub async fn count(cluster: &Cluster, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&cluster.db).await.unwrap()
}

/// What is wrong between the lanes' counters, the hot rows, the archive and what was purged.
pub async fn mismatches(cluster: &Cluster) -> Vec<String> {
    sqlx::query_scalar(
        "select format('lane %s: %s %s counted, %s there, %s purged', l.id, c.state, c.counted, n.jobs, c.purged)
           from lane l
          cross join lateral (values ('completed', l.completed, l.purged_completed), ('failed', l.failed, l.purged_failed),
                                     ('cancelled', l.cancelled, l.purged_cancelled)) as c (state, counted, purged)
          cross join lateral (select count(*) as jobs from any_job j
                               where j.lane_id = l.id and j.state::text = c.state) as n
          where c.counted <> n.jobs + c.purged
          union all
         select format('job %s is hot and archived', a.id) from archived_job a join current_job j on j.id = a.id
          union all
         select format('job %s is archived twice', id) from archived_job group by id having count(*) > 1
          union all
         select format('lane %s: %s failed with %s, %s there', e.lane_id, e.failed, e.error_code, n.jobs)
           from lane_error e
          cross join lateral (select count(*) as jobs from any_job j where j.lane_id = e.lane_id and j.state = 'failed'
                                 and j.error_code = e.error_code) as n
          where e.failed <> n.jobs",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap()
}

/// All pages of a list of the run, `first` at a time, with each page's total.
pub async fn pages(cluster: &Cluster, run: &str, list: &str, fields: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = Value::Null;
    loop {
        let query = format!(
            "query($id: ID!, $after: String) {{ run(id: $id) {{ {list} {{
               totalCount pageInfo {{ hasNextPage endCursor }} nodes {{ {fields} }} }} }} }}"
        );
        let answer = cluster.admin(&query, json!({ "id": run, "after": after })).await;
        let run = answer.data()["run"].as_object().unwrap();
        let page = run.values().next().unwrap().clone();
        after = page["pageInfo"]["endCursor"].clone();
        let more = page["pageInfo"]["hasNextPage"] == true;
        all.push(page);
        if !more {
            return all;
        }
    }
}
