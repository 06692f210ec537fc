//! `serve`, `serve --execute=false` and `work`: who serves and who executes.

use std::collections::HashSet;

use nix::sys::signal::Signal;
use runlane::domain::Role;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;

use super::process::{Home, Running, SECRET};
use crate::support::app::{PATIENCE, fresh_database};

/// The ports that a process listens on.
fn listens(pid: u32) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let own: HashSet<String> = fds
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|t| std::fs::read_to_string(format!("/proc/{pid}/net/{t}")).unwrap_or_default());
    let listening = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| own.contains(*inode))
    };
    tables.iter().flat_map(|table| table.lines()).filter(listening).count()
}

/// A client of one server.
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    pub async fn of(server: &Running) -> Self {
        let settings = |name: &str| (name == "RUNLANE_JWT_SECRET").then(|| SECRET.to_owned());
        let config = runlane::config::Config::from_lookup(&settings).unwrap();
        let clock = std::sync::Arc::new(runlane::domain::clock::SystemClock);
        let authority = runlane::app::authority(&config, clock).unwrap();
        let token = authority.issue("ada", Role::User, PATIENCE).unwrap();
        Self { http: reqwest::Client::new(), url: format!("http://{}", server.address().await), token }
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn post(&self, query: &str, variables: Value) -> reqwest::Response {
        let request = self.http.post(format!("{}/graphql", self.url)).bearer_auth(&self.token);
        request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap()
    }

    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        let answer: Value = self.post(query, variables).await.json().await.unwrap();
        assert!(answer.get("errors").is_none(), "{answer}");
        answer["data"].clone()
    }

    /// Starts a run of `n` probes, and gives its id.
    pub async fn run(&self, n: usize) -> Value {
        let scenarios: Vec<Value> =
            (0..n).map(|i| json!({ "key": format!("s{i}"), "prompt": "Say yes." })).collect();
        let input = json!({ "name": "yes", "content": {}, "scenarios": scenarios });
        let create = "mutation($i: CreateDefinitionInput!) { createDefinition(input: $i) { id } }";
        let made = self.ask(create, json!({ "i": input })).await;
        let input = json!({ "definitionId": made["createDefinition"]["id"], "models": ["mock/echo"] });
        let start = "mutation($i: StartRunInput!) { startRun(input: $i) { id } }";
        self.ask(start, json!({ "i": input })).await["startRun"]["id"].clone()
    }

    pub async fn until_completed(&self, run: &Value) {
        let query = "query($id: ID!) { run(id: $id) { status progress { completed } } }";
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let data = self.ask(query, json!({ "id": run })).await;
            if data["run"]["status"] == "COMPLETED" {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{data}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_execute_claims_nothing_and_a_worker_serves_nothing() {
    let url = fresh_database().await;
    let home = Home::new();
    let server = Running::start(&mut home.configured(&["serve", "--execute=false"], &url));
    let client = Client::of(&server).await;
    assert_eq!(listens(server.pid()), 1);
    let run = client.run(3).await;
    let query = "query($id: ID!) { run(id: $id) { status jobs { nodes { waitingBecause } } } }";
    let waiting = client.ask(query, json!({ "id": run })).await;
    assert_eq!(waiting["run"]["status"], "PENDING");
    assert_eq!(
        waiting["run"]["jobs"]["nodes"][0]["waitingBecause"],
        "No node that can run probe:scenario is alive."
    );
    let db = PgPool::connect(&url).await.unwrap();
    let nodes =
        async || -> i64 { sqlx::query_scalar("SELECT count(*) FROM node").fetch_one(&db).await.unwrap() };
    assert_eq!(nodes().await, 0, "only a node may claim");

    let worker = Running::start(&mut home.configured(&["work"], &url));
    client.until_completed(&run).await;
    assert_eq!(nodes().await, 1);
    assert_eq!(listens(worker.pid()), 0);

    worker.signal(Signal::SIGTERM);
    worker.end().await.ok();
    assert_eq!(nodes().await, 0, "it has signed off");
    server.signal(Signal::SIGTERM);
    let output = server.end().await.ok();
    assert!(!output.stderr.contains("job claimed"), "{output:#?}");
}

#[tokio::test]
async fn the_variable_says_the_same_as_the_flag_and_the_flag_wins() {
    let url = fresh_database().await;
    let home = Home::new();
    for (variable, flags, nodes) in [
        ("false", vec!["serve"], 0_i64),
        ("false", vec!["serve", "--execute", "true"], 1),
        ("true", vec!["serve"], 1),
    ] {
        let mut command = home.configured(&flags, &url);
        let server = Running::start(command.env("RUNLANE_EXECUTE", variable));
        let client = Client::of(&server).await;
        if nodes == 1 {
            server.logs("node registered").await;
        }
        assert_eq!(client.get("/ready").await.status(), 200);
        let db = PgPool::connect(&url).await.unwrap();
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM node").fetch_one(&db).await.unwrap();
        assert_eq!(found, nodes, "{variable} {flags:?}");
        server.signal(Signal::SIGINT);
        server.end().await.ok();
    }
}

#[tokio::test]
async fn a_signal_while_it_starts_ends_it_in_order() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://postgres@{}/none", silent.local_addr().unwrap());
    for (command, signal) in [("serve", Signal::SIGTERM), ("work", Signal::SIGINT)] {
        let home = Home::new();
        let server = Running::start(&mut home.configured(&[command], &url));
        // It has called the database, which never answers.
        let _call = silent.accept().await.unwrap();
        server.signal(signal);
        let said = server.end().await.ok().stderr;
        assert!(said.contains("stopping before the start was done"), "{command}: {said}");
    }
}
