//! A GraphQL client over HTTP, which knows several servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use runlane::app::authority;
use runlane::config::Config;
use runlane::domain::Role;
use runlane::domain::clock::SystemClock;
use serde_json::{Value, json};

use super::stage::PATIENCE;

/// Signs the tokens.
pub const SECRET: &str = "the-chaos-tests-sign-with-this-secret-of-48-chars";

/// Its wait between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// An admin.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    token: String,
    servers: Arc<Vec<SocketAddr>>,
    next: Arc<AtomicUsize>,
}

/// What a request was answered with.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The response's JSON body.
    pub body: Value,
}

impl Answer {
    /// Whether it holds data and no error.
    pub fn is_data(&self) -> bool {
        self.status == 200 && self.body.get("errors").is_none() && !self.body["data"].is_null()
    }

    /// The code of the first error.
    pub fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default()
    }
}

impl Client {
    /// A client of these servers.
    pub fn new(servers: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let settings = |name: &str| (name == "RUNLANE_JWT_SECRET").then(|| SECRET.to_owned());
        let token = authority(&Config::from_lookup(&settings)?, Arc::new(SystemClock))?
            .issue("chaos", Role::Admin, Duration::from_secs(86_400))
            .map_err(|error| anyhow::anyhow!("no token: {error}"))?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { http, token, servers: Arc::new(servers), next: Arc::new(AtomicUsize::new(0)) })
    }

    /// Sends a request once, to the server after the last one's.
    pub async fn post(&self, query: &str, variables: &Value) -> anyhow::Result<Answer> {
        let server = self.servers[self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len()];
        let request = self.http.post(format!("http://{server}/graphql")).bearer_auth(&self.token);
        let response = request.json(&json!({ "query": query, "variables": variables })).send().await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: response.json().await? })
    }

    /// What a probe of the first server says: its status, or none when nobody answers.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        let request = self.http.get(format!("http://{}{path}", self.servers[0]));
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Sends a request that must be answered with data.
    pub async fn ask(&self, query: &str, variables: &Value) -> anyhow::Result<Value> {
        let mut answer = self.post(query, variables).await?;
        ensure!(answer.is_data(), "{answer:?}");
        Ok(answer.body["data"].take())
    }

    /// Sends a request again and again, as a client with an idempotency key may: until it is answered with data, or
    /// with an error that another attempt would not change.
    pub async fn insist(&self, query: &str, variables: &Value) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let problem = match self.post(query, variables).await {
                Ok(mut answer) if answer.is_data() => return Ok(answer.body["data"].take()),
                Ok(answer) if matches!(answer.code(), "UNAVAILABLE" | "RATE_LIMITED") => {
                    format!("{answer:?}")
                }
                Ok(answer) => bail!("refused: {answer:?}"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(Instant::now() < deadline, "no answer within {PATIENCE:?}: {problem}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Makes a definition of `n` scenarios; returns its id.
    pub async fn definition(&self, n: usize) -> anyhow::Result<String> {
        let values: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let input = json!({
            "name": format!("definition of {n}"),
            "content": { "template": "Rate option {i}.", "dimensions": [{ "name": "i", "values": values }] },
        });
        let query = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }";
        let data = self.ask(query, &json!({ "input": input })).await?;
        Ok(data["createDefinition"]["id"].as_str().context("an id")?.to_owned())
    }

    /// Starts a run, however long that takes; returns its id.
    pub async fn start(&self, definition: &str, models: &[&str], key: &str) -> anyhow::Result<String> {
        self.start_as(json!({ "definitionId": definition, "models": models, "idempotencyKey": key })).await
    }

    /// Starts a run as this input says, which must have a key; returns its id.
    pub async fn start_as(&self, input: Value) -> anyhow::Result<String> {
        let data = self.insist(START, &json!({ "input": input })).await?;
        Ok(data["startRun"]["id"].as_str().context("an id")?.to_owned())
    }

    /// A run's status and progress.
    pub async fn state(&self, run: &str) -> anyhow::Result<Value> {
        let query = "query($id: ID!) { run(id: $id) {
            status progress { total pending active completed failed cancelled percentComplete } } }";
        Ok(self.insist(query, &json!({ "id": run })).await?["run"].take())
    }

    /// Waits until a run has ended; returns its last state.
    pub async fn until_ended(&self, run: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(run).await?;
            if matches!(state["status"].as_str(), Some("COMPLETED" | "FAILED" | "CANCELLED")) {
                return Ok(state);
            }
            ensure!(Instant::now() < deadline, "not ended within {PATIENCE:?}: {state}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Starts a run.
pub const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";
