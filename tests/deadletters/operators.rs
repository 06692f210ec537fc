//! Dead letters and lanes on the command line and in the views, as operators see them.

use serde_json::{Value, json};

use super::support::{acts, assert_entries_match_jobs, entries, failed_run};
use crate::cli::process::{Home, finish};
use crate::control::support::{counts, queue};
use crate::support::app::Cluster;

/// What a command prints.
async fn says(home: &Home, cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = home.configured(arguments, &cluster.url);
    // An operator has no secret.
    command.env_remove("RUNLANE_JWT_SECRET");
    finish(command).await.ok().stdout
}

async fn json_of(home: &Home, cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = says(home, cluster, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Why a command is refused.
async fn refusal(home: &Home, cluster: &Cluster, arguments: &[&str]) -> String {
    finish(home.configured(arguments, &cluster.url)).await.refusal().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_shows_resolves_and_redrives_from_the_command_line() {
    let (home, cluster) = (Home::new(), Cluster::start().await);
    let run = failed_run(&cluster, 5).await;
    let ids: Vec<String> = entries(&cluster.db).await.iter().map(|e| e.id.to_string()).collect();

    let list = says(&home, &cluster, &["deadletter", "list", "--limit", "2"]).await;
    assert!(list.contains("2 of 5: 5 non retryable") && list.contains("What looks the same"), "{list}");
    let place = list.split("--after ").nth(1).unwrap().lines().next().unwrap();
    let rest = json_of(&home, &cluster, &["deadletter", "list", "--after", place]).await;
    assert_eq!((&rest["totalCount"], rest["entries"].as_array().unwrap().len()), (&json!(5), 3));
    let none = says(&home, &cluster, &["deadletter", "list", "--reason", "crash_loop"]).await;
    assert_eq!(none, "No such dead letters.\n");
    let shown = says(&home, &cluster, &["deadletter", "show", &ids[0]]).await;
    for part in ["non retryable", "validation: ", "Rate option", "failed", &run] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }

    let resolve = ["deadletter", "resolve", &ids[0], "--resolution", "permanently_failed"];
    let closed =
        says(&home, &cluster, &[&resolve[..], &["--notes", "known", "--as", "grace"]].concat()).await;
    assert!(closed.contains("permanently failed") && closed.contains("by grace"), "{closed}");
    let recorded = acts(&cluster.db, "resolveDeadLetter").await;
    assert_eq!((recorded[0].0.as_str(), recorded[0].3.as_deref()), ("grace", Some("known")));

    queue(&cluster, "pauseQueue").await;
    let dry = json_of(&home, &cluster, &["deadletter", "redrive", "--run", &run, "--dry-run"]).await;
    assert_eq!((&dry["matched"], &dry["redriven"], &dry["dryRun"]), (&json!(4), &json!(4), &json!(true)));
    assert_eq!(counts(&cluster.state(&run).await)[3], 5);
    let said = says(&home, &cluster, &["deadletter", "redrive", "--all", "--rate", "60"]).await;
    assert!(said.starts_with("4 of 4 matching dead letters redriven\n") && said.contains(&run), "{said}");
    assert_eq!(counts(&cluster.state(&run).await), [4, 0, 0, 1, 0]);
    let who = &acts(&cluster.db, "redriveDeadLetters").await[0].0;
    assert!(who.starts_with("cli:") && who.len() > 4, "{who}");
    let again = says(&home, &cluster, &["deadletter", "redrive", "--all"]).await;
    assert_eq!(again, "0 of 0 matching dead letters redriven\n");
    assert_entries_match_jobs(&cluster.db).await;

    // What goes wrong says what to do instead.
    let unknown = refusal(&home, &cluster, &["deadletter", "show", "4711"]).await;
    assert!(unknown.contains("no dead letter with the id 4711"), "{unknown}");
    let everything = refusal(&home, &cluster, &["deadletter", "redrive"]).await;
    assert!(everything.contains("give --all"), "{everything}");
    let twice =
        refusal(&home, &cluster, &["deadletter", "resolve", &ids[0], "--resolution", "cancelled"]).await;
    assert!(twice.contains("was closed as permanently_failed by grace"), "{twice}");
    let unsaid = finish(home.configured(&["deadletter", "list", "--reason", "bad"], &cluster.url)).await;
    assert!(unsaid.stderr.contains("max_retries_exceeded") && unsaid.stdout.is_empty(), "{unsaid:#?}");
    let rate = refusal(&home, &cluster, &["deadletter", "redrive", "--all", "--rate", "0"]).await;
    assert!(rate.contains("ratePerMinute is 0"), "{rate}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_lanes_with_their_counters_and_why_they_wait() {
    let (home, cluster) = (Home::new(), Cluster::api_only(&[]).await);
    let none = says(&home, &cluster, &["lane", "list"]).await;
    assert_eq!(none, "Nothing waits or runs in any such lane; --all shows finished ones too.\n");
    let definition = cluster.definition(3).await;
    let run = cluster.run(&definition, &["mock/echo", "mock/rater"], json!({ "name": "study" })).await;
    cluster.run(&definition, &["mock/echo"], json!({ "priority": "HIGH" })).await;
    cluster.user("mutation($id: ID!) { pauseRun(id: $id) { id } }", json!({ "id": run })).await.data();

    let lanes = json_of(&home, &cluster, &["lane", "list"]).await;
    assert_eq!(lanes.as_array().unwrap().len(), 3);
    assert_eq!((&lanes[0]["priority"], &lanes[0]["state"]), (&json!(10), &json!("waiting")));
    assert!(lanes[0]["waitingBecause"].as_str().unwrap().starts_with("No node"), "{lanes}");
    let of_run = json_of(&home, &cluster, &["lane", "list", "--run", &run, "--model", "mock/rater"]).await;
    assert_eq!((of_run.as_array().unwrap().len(), &of_run[0]["state"]), (1, &json!("paused")));
    let id = of_run[0]["id"].as_str().unwrap();
    let shown = says(&home, &cluster, &["lane", "show", id]).await;
    for part in ["3 pending", "mock/rater", "study", "The run has been paused since"] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let table = says(&home, &cluster, &["lane", "list"]).await;
    assert!(table.contains("its next job waits because") && table.contains("paused"), "{table}");
    let unknown = refusal(&home, &cluster, &["lane", "show", "4711"]).await;
    assert!(unknown.contains("no lane with the id 4711"), "{unknown}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_count_what_there_is_and_put_what_kills_workers_first() {
    let settings = [("RUNLANE_CRASH_LOOP_LOSSES", "1")];
    let cluster = Cluster::with(&settings).await;
    let definition = cluster.definition(2).await;
    let models = ["mock/echo?fail=validation", "mock/echo?crash=exit"];
    for model in models {
        let run = cluster.run(&definition, &[model], json!({ "name": model })).await;
        cluster.until_status(&run, "COMPLETED").await;
    }
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "select reason::text, status::text, run_name, entries from v_dlq_dashboard order by run_name",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let row = |reason: &str, model: &str| (reason.to_owned(), "pending".to_owned(), model.to_owned(), 2);
    assert_eq!(rows, [row("crash_loop", models[1]), row("non_retryable", models[0])]);

    let queue: Vec<(String, i64, bool)> = sqlx::query_as(
        "select reason::text, alike, age > interval '0' and attempts > 0 from v_dlq_investigation_queue order by place",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    let reasons: Vec<&str> = queue.iter().map(|(reason, ..)| reason.as_str()).collect();
    assert_eq!(reasons, ["crash_loop", "crash_loop", "non_retryable", "non_retryable"]);
    assert!(queue.iter().all(|(_, alike, is_told)| *alike >= 1 && *is_told), "{queue:?}");
    sqlx::query("update dead_letter set attempts = $1")
        .bind(json!([{ "stderr_tail": "a" }, { "stderr_tail": "b" }, { "stderr_tail": null }]))
        .execute(&cluster.db)
        .await
        .unwrap();
    let tails: Vec<Option<String>> = sqlx::query_scalar("select stderr_tail from v_dlq_investigation_queue")
        .fetch_all(&cluster.db)
        .await
        .unwrap();
    assert_eq!(tails, vec![Some("b".to_owned()); 4], "the last that there is");
    let bare: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c
          where c.relname in ('v_dlq_dashboard', 'v_dlq_investigation_queue', 'dead_letter')
            and obj_description(c.oid) is null",
    )
    .fetch_all(&cluster.db)
    .await
    .unwrap();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let (home, cluster) = (Home::new(), Cluster::api_only(&[]).await);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.configured(&["deadletter", "list"], &cluster.url);
    let ended = command.stdout(writer).stderr(std::process::Stdio::piped()).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    cluster.stop().await;
}
