//! Who may see and do what.

use runlane::domain::Role;
use serde_json::{Value, json};

use super::support::{counts, mutation, probes};
use crate::support::app::Cluster;

/// Who asks: the run is of the user `ada`. A viewer sees all, whatever its name.
const PEOPLE: [(&str, Role); 5] = [
    ("ada", Role::User),
    ("bob", Role::User),
    ("root", Role::Admin),
    ("eve", Role::Viewer),
    ("ada", Role::Viewer),
];

const ON_RUNS: [&str; 8] = [
    "setRunPriority(id: $id, priority: LOW)",
    "pauseRun(id: $id)",
    "resumeRun(id: $id)",
    "startAnalysis(runId: $id, kind: BASIC)",
    "startAnalysis(runId: $id, kind: DEEP)",
    "retryFailedJobs(runId: $id)",
    "cancelRun(id: $id)",
    "cancelRun(id: $id, mode: IMMEDIATE)",
];

const ON_JOBS: [&str; 3] = ["retryJob(id: $id)", "cancelJob(id: $id)", "deadLetterJob(id: $id)"];

/// What became of a request: the code of its refusal, or that it was for the state to decide.
fn outcome(body: &Value) -> &str {
    match body["errors"][0]["extensions"]["code"].as_str() {
        None | Some("RUN_STATE_ERROR" | "JOB_VALIDATION_ERROR") => "decided",
        Some(code) => code,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mutation_is_for_its_people() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(2).await, &["mock/echo"], json!({})).await;
    let job = probes(&cluster, &run, "PENDING").await.swap_remove(0);
    let nothing = "00000000-0000-7000-8000-000000000000";
    let mut wrong = Vec::new();
    let calls = ON_RUNS
        .iter()
        .map(|c| (*c, run.as_str(), nothing))
        .chain(ON_JOBS.iter().map(|c| (*c, job.as_str(), "4711")));
    for (call, id, nothing) in calls {
        // The owner last: by then nobody else has changed anything.
        for (subject, role) in PEOPLE.into_iter().rev() {
            let before = cluster.state(&run).await;
            let expected = match (role, subject) {
                (Role::Viewer, _) => "FORBIDDEN",
                (Role::User, "bob") => "NOT_FOUND",
                _ => "decided",
            };
            let answer = cluster.ask(subject, role, &mutation(call), json!({ "id": id })).await;
            if outcome(&answer.body) != expected {
                wrong.push(format!("{call} of the {role} {subject}: {}", answer.body));
            }
            if expected != "decided" && cluster.state(&run).await != before {
                wrong.push(format!("{call} of the {role} {subject} was refused and changed the run"));
            }
            for id in [nothing, "nonsense", ""] {
                let expected = if role == Role::Viewer { "FORBIDDEN" } else { "NOT_FOUND" };
                let answer = cluster.ask(subject, role, &mutation(call), json!({ "id": id })).await;
                if outcome(&answer.body) != expected {
                    wrong.push(format!("{call} of {id:?} by the {role} {subject}: {}", answer.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_run_and_none_are_refused_in_the_same_words() {
    let cluster = Cluster::api_only(&[]).await;
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    let none = run.replace(|c: char| c.is_ascii_hexdigit(), "0");
    let mut said = Vec::new();
    for id in [&run, &none] {
        let answer =
            cluster.ask("bob", Role::User, &mutation("pauseRun(id: $id)"), json!({ "id": id })).await;
        assert_eq!(answer.code(), "NOT_FOUND");
        said.push(answer.body["errors"][0]["message"].as_str().unwrap().replace(id.as_str(), "it"));
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(cluster.state(&run).await["status"], "PENDING");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_admins_create_and_start_and_viewers_do_not() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let create = "mutation($name: String!) { createDefinition(input: { name: $name, content: {},
                      scenarios: [{ key: \"a\", prompt: \"b\" }] }) { id createdBy } }";
    let start = "mutation($id: ID!) { startRun(input: { definitionId: $id, models: [\"mock/echo\"] }) { id createdBy } }";
    for (subject, role) in PEOPLE {
        let created = cluster.ask(subject, role, create, json!({ "name": format!("of {subject}") })).await;
        let started = cluster.ask(subject, role, start, json!({ "id": definition })).await;
        if role == Role::Viewer {
            assert_eq!((created.code(), started.code()), ("FORBIDDEN", "FORBIDDEN"), "{subject}");
        } else {
            assert_eq!(created.data()["createDefinition"]["createdBy"], subject);
            assert_eq!(started.data()["startRun"]["createdBy"], subject, "definitions are everybody's");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_show_a_user_its_own_runs_and_viewers_and_admins_all() {
    let cluster = Cluster::start().await;
    let definition = cluster.definition(1).await;
    let adas = cluster.run(&definition, &["mock/echo"], json!({})).await;
    let start =
        "mutation($id: ID!) { startRun(input: { definitionId: $id, models: [\"mock/echo\"] }) { id } }";
    let bobs = cluster.ask("bob", Role::User, start, json!({ "id": definition })).await;
    let bobs = bobs.data()["startRun"]["id"].as_str().unwrap().to_owned();
    for run in [&adas, &bobs] {
        cluster.until_status(run, "COMPLETED").await;
    }
    let query = "query($run: ID!, $job: ID!, $definition: ID!) {
        run(id: $run) { id jobs { totalCount } transcripts { totalCount } }
        job(id: $job) { id }
        runs { totalCount nodes { id } }
        filtered: runs(filter: { createdBy: \"ada\", status: [COMPLETED] }) { totalCount nodes { id } }
        definition(id: $definition) { id runs { totalCount nodes { id } } }
        definitions { totalCount }
        queueStatus { isPaused }
        none: run(id: \"00000000-0000-7000-8000-000000000000\") { id }
        nonsense: run(id: \"nonsense\") { id }
        noJob: job(id: \"4711\") { id }
        noDefinition: definition(id: \"nonsense\") { id } }";
    let job = probes(&cluster, &adas, "COMPLETED").await.swap_remove(0);
    for (subject, role) in PEOPLE {
        let variables = json!({ "run": adas, "job": job, "definition": definition });
        let answer = cluster.ask(subject, role, query, variables).await;
        let data = answer.data();
        let who = format!("the {role} {subject}: {data}");
        let sees_adas = (subject, role) != ("bob", Role::User);
        assert_eq!(data["run"]["id"].is_string(), sees_adas, "{who}");
        assert_eq!(data["run"].is_null(), !sees_adas, "{who}");
        assert_eq!(data["job"].is_null(), !sees_adas, "{who}");
        if sees_adas {
            assert_eq!(data["run"]["transcripts"]["totalCount"], 1, "{who}");
        }
        let listed: Vec<&str> = match (role, subject) {
            (Role::User, "ada") => vec![&adas],
            (Role::User, _) => vec![&bobs],
            _ => vec![&bobs, &adas],
        };
        for list in [&data["runs"], &data["definition"]["runs"]] {
            let ids: Vec<&str> =
                list["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
            assert_eq!(ids, listed, "{who}");
            assert_eq!(list["totalCount"], listed.len(), "{who}");
        }
        assert_eq!(data["filtered"]["totalCount"], i32::from(sees_adas), "{who}");
        assert_eq!(data["definition"]["id"], definition.as_str(), "definitions are everybody's: {who}");
        assert_eq!(data["definitions"]["totalCount"], 1, "{who}");
        assert_eq!(data["queueStatus"]["isPaused"], false, "{who}");
        for unknown in ["none", "nonsense", "noJob", "noDefinition"] {
            assert!(data[unknown].is_null(), "{unknown} for {who}");
        }
    }
    assert_eq!(counts(&cluster.state(&adas).await), [0, 0, 1, 0, 0]);
    cluster.stop().await;
}
