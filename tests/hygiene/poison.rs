//! One job that kills its worker again and again, and losses that are nobody's fault.

use serde_json::{Value, json};

use crate::queue::support::{assert_books_balance, jobs};
use crate::support::app::Cluster;

/// Attempts of the run's probes as the API tells them, with the job's error.
const ATTEMPTS: &str = "query($id: ID!) { run(id: $id) { jobs(first: 100) { edges { node {
    type status error { code message } attempts { number outcome errorMessage fingerprint } } } } } }";

async fn probes(cluster: &Cluster, run: &str) -> Vec<Value> {
    let answer = cluster.admin(ATTEMPTS, json!({ "id": run })).await;
    let edges = answer.data()["run"]["jobs"]["edges"].as_array().unwrap().clone();
    edges.into_iter().map(|e| e["node"].clone()).filter(|n| n["type"] == "probe:scenario").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_says_how_the_worker_died_and_every_attempt_what_it_looked_like() {
    // Time to die: a worker that takes longer to end than its grace counts as one that closed its stdout and ran on.
    let cluster = Cluster::with(&[("RUNLANE_WORKER_TERM_GRACE_MS", "60000")]).await;
    let definition = cluster.definition(2).await;
    let mut prints = std::collections::BTreeSet::new();
    for (model, how) in [
        ("mock/echo?crash=exit", "exited with 70"),
        ("mock/echo?crash=segv", "was killed by SIGSEGV"),
        ("mock/echo?crash=oom", "was killed by SIGKILL"),
    ] {
        let run = cluster.run(&definition, &[model], json!({})).await;
        cluster.until_status(&run, "COMPLETED").await;
        let mut of_model = std::collections::BTreeSet::new();
        for probe in probes(&cluster, &run).await {
            let message = probe["error"]["message"].as_str().unwrap();
            assert_eq!(probe["error"]["code"], "worker_crash");
            assert!(
                message.starts_with("crash loop: 3 workers were lost") && message.contains(how),
                "{message}"
            );
            let attempts = probe["attempts"].as_array().unwrap();
            let alone = attempts.iter().rev().take(3);
            of_model.extend(alone.map(|a| a["fingerprint"].as_str().expect("a crash has one").to_owned()));
            assert!(message.contains(&of_model.first().unwrap()[..16]), "{message} {of_model:?}");
        }
        // Both jobs, every attempt: one origin.
        assert_eq!(of_model.len(), 1, "{of_model:?}");
        let print = of_model.pop_first().unwrap();
        assert!(print.contains(", mock/echo") && !print.contains('?'), "{print}");
        prints.insert(print);
    }
    assert_eq!(prints.len(), 3, "three ways to die: {prints:?}");
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_nodes_blames_no_job_however_often() {
    let cluster = Cluster::api_only(&[("RUNLANE_CRASH_HOLD_JOBS", "1")]).await;
    let definition = cluster.definition(6).await;
    let run = cluster.run(&definition, &["mock/echo"], json!({})).await;
    // The jobs are suspects, which run alone: still nobody saw their worker die.
    sqlx::query("update job set is_suspect = true").execute(&cluster.db).await.unwrap();
    for round in 1..=5 {
        let node = uuid::Uuid::from_u128(round);
        sqlx::query(
            "insert into node (id, name, version, lease_until, executes) values ($1, 'n', '0', now() + interval '1 hour', true)",
        )
        .bind(node)
        .execute(&cluster.db)
        .await
        .unwrap();
        let claimed: i64 = sqlx::query_scalar(
            "select count(*) from claim_jobs($1, array['probe:scenario']::job_kind[], array[6]) where job_id is not null",
        )
        .bind(node)
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        assert_eq!(claimed, 6, "round {round}");
        sqlx::query("update node set lease_until = now() - interval '1 second' where id = $1")
            .bind(node)
            .execute(&cluster.db)
            .await
            .unwrap();
        let lost: i64 =
            sqlx::query_scalar("select count(*) from rescue_jobs(0)").fetch_one(&cluster.db).await.unwrap();
        assert_eq!(lost, 6, "round {round}");
    }
    for job in jobs(&cluster.db, &run).await {
        assert_eq!((job.state.as_str(), job.losses, job.losses_alone), ("pending", 5, 0), "{job:?}");
    }
    let (crashes, held, printed): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from lane_crash), (select count(*) from lane where held_at is not null),
                (select count(*) from attempt where fingerprint is not null)",
    )
    .fetch_one(&cluster.db)
    .await
    .unwrap();
    assert_eq!((crashes, held, printed), (0, 0, 0));
    assert_books_balance(&cluster.db).await;
    cluster.stop().await;
}
