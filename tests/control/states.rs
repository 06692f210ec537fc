//! The contract's table over the API: every action on a run that truly is in every state.

use runlane::domain::RunStatus;
use serde_json::json;

use super::contract::{self, Cell};
use super::support::{ENDLESS, act, did, probes, queue, snapshot};
use crate::support::app::Cluster;

/// The call of a cell's mutation.
fn call(mutation: &str) -> String {
    match mutation {
        "setRunPriority" => "setRunPriority(id: $id, priority: HIGH)".to_owned(),
        "startAnalysis" => "startAnalysis(runId: $id, kind: DEEP)".to_owned(),
        "retryFailedJobs" => "retryFailedJobs(runId: $id)".to_owned(),
        other => format!("{other}(id: $id)"),
    }
}

/// A run with a failed probe, in this status; PENDING needs the queue to be paused, all others need it not to be.
async fn run_in(cluster: &Cluster, definition: &str, status: RunStatus) -> String {
    const FAILS: &str = "mock/echo?fail=validation";
    let endless = async || {
        let run = cluster.run(definition, &[FAILS, ENDLESS], json!({})).await;
        let under_way = |s: &serde_json::Value| s["progress"]["failed"] == 1 && s["progress"]["active"] == 1;
        cluster.until(&run, "failed and active", under_way).await;
        run
    };
    let run = match status {
        RunStatus::Pending => cluster.run(definition, &[FAILS, ENDLESS], json!({})).await,
        RunStatus::Running => endless().await,
        RunStatus::Paused => {
            let run = endless().await;
            did(cluster, "pauseRun(id: $id)", &run).await;
            run
        }
        RunStatus::Completed => {
            let run = cluster.run(definition, &[FAILS, "mock/echo"], json!({})).await;
            cluster.until_status(&run, "COMPLETED").await;
            run
        }
        RunStatus::Failed => {
            let run = endless().await;
            super::guard::stop(cluster, &run).await;
            run
        }
        RunStatus::Cancelled => {
            let run = endless().await;
            did(cluster, "cancelRun(id: $id, mode: IMMEDIATE)", &run).await;
            run
        }
    };
    // What follows of itself must not be taken for the action's effect.
    cluster
        .until(&run, "at rest", |s| {
            let all_ended = s["progress"]["pending"] == 0 && s["progress"]["active"] == 0;
            !all_ended || super::support::is_analysis(s, "BASIC", "COMPLETED")
        })
        .await
        .get("status")
        .filter(|s| *s == status.as_str())
        .unwrap_or_else(|| panic!("the run is not {status}"));
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_done_when() {
    let cluster = Cluster::with(&[
        ("RUNLANE_WORKER_CONCURRENCY", "64"),
        ("RUNLANE_WORKER_CANCEL_GRACE_MS", "500"),
        ("RUNLANE_SHUTDOWN_GRACE_MS", "0"),
    ])
    .await;
    let definition = cluster.definition(1).await;
    let mut runs = Vec::new();
    let (pending, others): (Vec<Cell>, Vec<Cell>) =
        contract::cells().into_iter().partition(|cell| cell.status == RunStatus::Pending);
    let at_once =
        others.into_iter().map(async |cell| (cell, run_in(&cluster, &definition, cell.status).await));
    runs.extend(futures_util::future::join_all(at_once).await);
    // Nothing moves of itself any more.
    queue(&cluster, "pauseQueue").await;
    for cell in pending {
        runs.push((cell, run_in(&cluster, &definition, cell.status).await));
    }
    assert_eq!(runs.len(), 36);

    let mut wrong = Vec::new();
    for (cell, run) in runs {
        let Cell { mutation, status, after, unchanged } = cell;
        let before = snapshot(&cluster, &run).await;
        assert_eq!(before["status"], status.as_str());
        let answer = act(&cluster, &call(mutation), &run).await;
        let now = snapshot(&cluster, &run).await;
        let mut check = |holds: bool, what: &str| {
            if !holds {
                let seen = format!("{}\nbefore {before}\nafter  {now}", answer.body);
                wrong.push(format!("{mutation} on a {status} run: {what}: {seen}"));
            }
        };
        match after {
            Some(after) => {
                check(answer.body["data"]["it"]["status"] == after.as_str(), "the answer's status");
                check(now["status"] == after.as_str(), "the status");
                check(!unchanged || now == before, "nothing changes");
                // A repeated cancel alone changes nothing; every other action leaves its mark.
                check(unchanged || now["revision"] != before["revision"], "the revision grows");
            }
            None => {
                let error = &answer.body["errors"][0];
                check(error["extensions"]["code"] == "RUN_STATE_ERROR", "the code");
                check(error["extensions"]["currentStatus"] == status.as_str(), "currentStatus");
                check(error["extensions"]["action"] == contract::action(mutation).name(), "action");
                let verb = contract::action(mutation).as_str();
                check(error["message"] == format!("Cannot {verb} run in {status} state"), "the message");
                check(now == before, "nothing changes");
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_was_asked_and_why_not() {
    let cluster = Cluster::start().await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    cluster.until_status(&run, "COMPLETED").await;
    let refused = act(&cluster, "pauseRun(id: $id)", &run).await;
    super::support::assert_refused(&refused, "COMPLETED", "pause", "Cannot pause run in COMPLETED state");
    assert_eq!(refused.status, 200);
    assert!(probes(&cluster, &run, "COMPLETED").await.len() == 1);
    cluster.stop().await;
}
