//! Analyses on demand.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::support::{EAGER, analysis, counts, coverage, did, is_analysis, job, looked, queue, snapshot};
use crate::support::app::{Cluster, python};

const DEEP: &str = "startAnalysis(runId: $id, kind: DEEP)";
const BASIC: &str = "startAnalysis(runId: $id, kind: BASIC)";

/// A completed and analysed run of 6 probes.
async fn analysed(cluster: &Cluster) -> (String, Value) {
    let run = cluster.run(&cluster.definition(6).await, &["mock/rater"], json!({})).await;
    let state = cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    (run, state)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_of_the_kind_waits_or_runs_nothing_changes() {
    // An interpreter that lets analyses wait until the test lets them go. Of two that wait, one gets the line, and the other
    // the end of the file: it waits on.
    let dir = tempfile::tempdir().unwrap();
    let (go, interpreter) = (dir.path().join("go"), dir.path().join("python"));
    let made = std::process::Command::new("mkfifo").arg(&go).status().unwrap();
    assert!(made.success());
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--serve*) ;; *) until read -r line < '{}'; do :; done ;; esac\nexec '{}' \"$@\"\n",
        go.display(),
        python().display()
    );
    std::fs::write(&interpreter, script).unwrap();
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster::with(&[("RUNLANE_PYTHON", interpreter.to_str().unwrap())]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/rater"], json!({})).await;
    cluster.until(&run, "being analysed", |s| is_analysis(s, "BASIC", "RUNNING")).await;
    let running = snapshot(&cluster, &run).await;
    did(&cluster, BASIC, &run).await;
    assert_eq!(snapshot(&cluster, &run).await, running, "one runs");

    queue(&cluster, "pauseQueue").await;
    did(&cluster, DEEP, &run).await;
    let waiting = snapshot(&cluster, &run).await;
    assert!(is_analysis(&waiting, "DEEP", "PENDING"));
    did(&cluster, DEEP, &run).await;
    assert_eq!(snapshot(&cluster, &run).await, waiting, "one waits");
    queue(&cluster, "resumeQueue").await;
    let release = || {
        let go = go.clone();
        tokio::task::spawn_blocking(move || std::fs::write(go, "go\n").unwrap())
    };
    release().await.unwrap();
    cluster
        .until(&run, "one done", |s| {
            is_analysis(s, "BASIC", "COMPLETED") || is_analysis(s, "DEEP", "COMPLETED")
        })
        .await;
    release().await.unwrap();
    cluster
        .until(&run, "both done", |s| {
            is_analysis(s, "BASIC", "COMPLETED") && is_analysis(s, "DEEP", "COMPLETED")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_analysis_is_computed_anew_and_the_old_result_stands_meanwhile() {
    let cluster = Cluster::start().await;
    let (run, first) = analysed(&cluster).await;
    let first = analysis(&first, "BASIC").unwrap().clone();
    queue(&cluster, "pauseQueue").await;
    let waiting = did(&cluster, BASIC, &run).await;
    assert_eq!(waiting["status"], "COMPLETED", "an analysis does not reopen the run");
    let meanwhile = analysis(&waiting, "BASIC").unwrap();
    assert_eq!(meanwhile["status"], "PENDING");
    assert_eq!((&meanwhile["result"], &meanwhile["computedAt"]), (&first["result"], &first["computedAt"]));
    queue(&cluster, "resumeQueue").await;
    let again = cluster.until(&run, "computed anew", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    let again = analysis(&again, "BASIC").unwrap();
    assert!(again["computedAt"].as_str().unwrap() > first["computedAt"].as_str().unwrap(), "{again}");
    assert_eq!(again["result"], first["result"], "the same records give the same result");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_of_a_paused_run_waits_for_the_resume() {
    let cluster = Cluster::with(&EAGER).await;
    let definition = cluster.definition(2).await;
    let run = cluster
        .run(&definition, &["mock/rater", "mock/rater?delayMs=700"], json!({ "maxConcurrency": 1 }))
        .await;
    cluster.until(&run, "started", |s| counts(s)[1] == 1).await;
    let paused = did(&cluster, "pauseRun(id: $id)", &run).await;
    assert!(counts(&paused)[0] > 0);
    let asked = did(&cluster, BASIC, &run).await;
    assert!(is_analysis(&asked, "BASIC", "PENDING"));
    looked(&cluster).await;
    let state = cluster.state(&run).await;
    assert!(is_analysis(&state, "BASIC", "PENDING"), "{state}");
    did(&cluster, "resumeRun(id: $id)", &run).await;
    let done = cluster
        .until(&run, "analysed whole", |s| {
            analysis(s, "BASIC").is_some_and(|a| a["status"] == "COMPLETED" && a["coverage"]["used"] == 4)
        })
        .await;
    assert_eq!(done["status"], "COMPLETED");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_analyses_shows_status_error_coverage_and_warnings() {
    // An interpreter whose analyses fail while the test says so.
    let dir = tempfile::tempdir().unwrap();
    let (broken, interpreter) = (dir.path().join("broken"), dir.path().join("python"));
    let script = format!(
        r#"#!/bin/sh
case "$*" in *--serve*) exec '{python}' "$@" ;; esac
[ -e '{broken}' ] || exec '{python}' "$@"
id=$(sed -n 's/.*"jobId":"\([^"]*\)".*/\1/p')
printf '{{"v":1,"type":"error","jobId":"%s","error":{{"code":"validation","message":"as the test asks","retryable":false}}}}\n' "$id"
"#,
        python = python().display(),
        broken = broken.display()
    );
    std::fs::write(&interpreter, script).unwrap();
    std::fs::set_permissions(&interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster::with(&[("RUNLANE_PYTHON", interpreter.to_str().unwrap())]).await;
    let models = ["mock/rater", "mock/echo?fail=validation"];
    let run = cluster.run(&cluster.definition(3).await, &models, json!({})).await;
    let state = cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    let basic = analysis(&state, "BASIC").unwrap();
    assert_eq!(coverage(&state, "BASIC"), Some([6, 3, 3]));
    assert!(!basic["warnings"].as_array().unwrap().is_empty(), "half of the run is missing: {basic}");
    assert!(basic["error"].is_null() && basic["result"].is_object() && basic["computedAt"].is_string());

    std::fs::write(&broken, "").unwrap();
    did(&cluster, DEEP, &run).await;
    let failed = cluster.until(&run, "failed", |s| is_analysis(s, "DEEP", "FAILED")).await;
    let deep = analysis(&failed, "DEEP").unwrap();
    assert_eq!(deep["error"], json!({ "code": "validation", "message": "as the test asks" }));
    assert!(deep["result"].is_null() && deep["coverage"].is_null() && deep["computedAt"].is_null(), "{deep}");
    assert_eq!(failed["status"], "COMPLETED", "an analysis holds back no run");
    assert_eq!(failed["analyses"].as_array().unwrap().len(), 2);

    // A failed analysis is a job like any other: retried, it goes on.
    std::fs::remove_file(&broken).unwrap();
    let id = super::support::snapshot(&cluster, &run).await["analyses"][1]["id"].as_str().unwrap().to_owned();
    let retried = did(&cluster, "retryJob(id: $id)", &id).await;
    assert_eq!(retried["type"], "analyze:deep");
    let done = cluster.until(&run, "computed", |s| is_analysis(s, "DEEP", "COMPLETED")).await;
    assert!(analysis(&done, "DEEP").unwrap()["error"].is_null());
    assert_eq!(job(&cluster, &id).await["attempt"], 2);
    cluster.stop().await;
}

/// The basic analysis with its typed fields, once it was computed or confirmed after `after`.
async fn basic_after(cluster: &Cluster, run: &str, after: &str) -> Value {
    let newer = |s: &Value| {
        let basic = analysis(s, "BASIC");
        basic.is_some_and(|a| {
            a["status"] == "COMPLETED" && a["computedAt"].as_str().is_some_and(|at| at > after)
        })
    };
    cluster.until(run, "analysed again", newer).await;
    let query = "query($id: ID!) { run(id: $id) { analyses { kind status result coverage computedAt cachedFrom
        models { modelId n mean sd interval { low high } distribution { score count } latencyMs { n p50 p95 } costUsd }
        winRates { modelA modelB shared winsA winsB ties winRateA interval { low high } }
        comparisons { p } correlations { p } agreement { fleiss { kappa } } dimensions { p } } } }";
    cluster.user(query, json!({ "id": run })).await.data()["run"]["analyses"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nothing_has_changed_about_is_taken_over_and_anything_else_computes_anew() {
    let cluster = Cluster::start().await;
    let (run, _) = analysed(&cluster).await;
    let first = basic_after(&cluster, &run, "").await;
    assert!(first["cachedFrom"].is_null() && first["result"]["methods"]["code"].is_string(), "{first}");

    let mut last = first.clone();
    for _ in 0..2 {
        did(&cluster, BASIC, &run).await;
        let again = basic_after(&cluster, &run, last["computedAt"].as_str().unwrap()).await;
        assert_eq!((&again["result"], &again["coverage"]), (&first["result"], &first["coverage"]));
        assert_eq!(again["cachedFrom"], first["computedAt"], "it was computed once");
        last = again;
    }
    for change in [
        "update transcript set score = 5",
        "update analysis set result = jsonb_set(result, '{methods,code}', '\"of old\"')",
    ] {
        sqlx::query(change).execute(&cluster.db).await.unwrap();
        did(&cluster, BASIC, &run).await;
        last = basic_after(&cluster, &run, last["computedAt"].as_str().unwrap()).await;
        assert!(last["cachedFrom"].is_null(), "{change}: {last}");
        assert_eq!(last["models"][0]["mean"], 5.0, "{change}");
        assert_eq!(last["result"]["methods"]["code"], first["result"]["methods"]["code"]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_read_most_is_typed_and_null_in_the_other_kind() {
    let cluster = Cluster::start().await;
    let models = ["mock/rater", "mock/rater?other=1"];
    let run = cluster.run(&cluster.definition(12).await, &models, json!({})).await;
    cluster.until(&run, "analysed", |s| is_analysis(s, "BASIC", "COMPLETED")).await;
    let basic = basic_after(&cluster, &run, "").await;
    let model = &basic["models"][0];
    let whole = &basic["result"]["models"][0];
    assert_eq!((&model["modelId"], &model["n"]), (&json!("mock/rater"), &json!(12)));
    for field in ["mean", "sd", "interval", "latencyMs", "costUsd"] {
        assert_eq!(model[field], whole[field], "{field}");
    }
    let rated =
        model["distribution"].as_array().unwrap().iter().map(|d| d["count"].as_i64().unwrap()).sum::<i64>();
    assert_eq!(rated, 12);
    assert_eq!(basic["winRates"][0]["shared"], 12);
    assert!(basic["comparisons"].is_null() && basic["agreement"].is_null(), "{basic}");

    did(&cluster, DEEP, &run).await;
    cluster.until(&run, "analysed deeply", |s| is_analysis(s, "DEEP", "COMPLETED")).await;
    let query = "query($id: ID!) { run(id: $id) { analyses { result models { n }
        comparisons { modelA modelB n difference interval { low high } p pAdjusted significant }
        correlations { modelA modelB n rho p pAdjusted significant }
        agreement { pairs { modelA modelB n kappa interval { low high } } fleiss { n kappa } krippendorff { n alpha } }
        dimensions { dimension n h p epsilonSquared pAdjusted significant levels { level n mean sd } } } } }";
    let answer = cluster.user(query, json!({ "id": run })).await;
    let deep = &answer.data()["run"]["analyses"][1];
    let whole = &deep["result"];
    assert!(deep["models"].is_null());
    for (part, field) in [("comparisons", "difference"), ("correlations", "rho"), ("dimensions", "h")] {
        assert_eq!(deep[part].as_array().unwrap().len(), 1, "{part}");
        assert_eq!(deep[part][0][field], whole[part][0][field], "{part}");
        assert_eq!(deep[part][0]["pAdjusted"], whole[part][0]["pAdjusted"], "{part}");
    }
    assert_eq!(deep["agreement"]["pairs"][0]["kappa"], whole["agreement"]["pairs"][0]["kappa"]);
    assert_eq!(deep["agreement"]["krippendorff"]["alpha"], whole["agreement"]["krippendorff"]["alpha"]);
    assert_eq!(deep["dimensions"][0]["levels"][0]["mean"], whole["dimensions"][0]["levels"][0]["mean"]);
    cluster.stop().await;
}
