//! The real server in this process: real HTTP, a database of its own, real Python workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runlane::app::{App, Roles, authority};
use runlane::config::Config;
use runlane::domain::Role;
use runlane::domain::clock::SystemClock;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::postgres::database_like;
use super::proxy::Proxy;

/// Signs the tokens of every test.
pub const SECRET: &str = "the-tests-sign-with-this-secret-of-48-characters";

/// How long a test waits for what must happen before it fails. Generous: it bounds failures, it is no timing.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The interpreter of the Python environment that `make` prepares.
pub fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/.venv/bin/python");
    assert!(python.exists(), "python/.venv is missing: run `make python`");
    python
}

/// The URL of a new database with the schema in it.
pub async fn fresh_database() -> String {
    database_like("migrated", async |url| {
        let pool = PgPool::connect(&url).await.expect("the template answers");
        runlane::store::migrate(&pool).await.expect("the migrations apply");
        pool.close().await;
    })
    .await
}

/// A database and the processes on it.
pub struct Cluster {
    /// The database's URL.
    pub url: String,
    settings: BTreeMap<String, String>,
    /// Connections of the test itself.
    pub db: PgPool,
    nodes: Vec<App>,
    /// Whether the first node does.
    executes: bool,
    /// Where the first node that serves listens.
    pub address: SocketAddr,
    http: reqwest::Client,
}

/// What a GraphQL request was answered with.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The response's headers.
    pub headers: reqwest::header::HeaderMap,
    /// The response's JSON body.
    pub body: Value,
}

impl Answer {
    /// The data; panics when there are errors.
    #[track_caller]
    pub fn data(&self) -> &Value {
        assert!(self.body.get("errors").is_none(), "{}", self.body);
        &self.body["data"]
    }

    /// The `extensions` of the only error.
    #[track_caller]
    pub fn refusal(&self) -> &Value {
        let errors = self.body["errors"].as_array().unwrap_or_else(|| panic!("no error: {}", self.body));
        assert_eq!(errors.len(), 1, "{}", self.body);
        &errors[0]["extensions"]
    }

    /// The code of the only error.
    #[track_caller]
    pub fn code(&self) -> &str {
        self.refusal()["code"].as_str().expect("every error has a code")
    }
}

impl Cluster {
    /// One node that serves and executes.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One node that serves and executes, with these settings over the tests' own.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::begin(settings, Roles { serves: true, executes: true }).await
    }

    /// One node that serves only: nothing is claimed until [`Cluster::add_node`].
    pub async fn api_only(settings: &[(&str, &str)]) -> Self {
        Self::begin(settings, Roles { serves: true, executes: false }).await
    }

    /// One node that serves and executes, whose way to the database is the proxy. The test's own connections go round it.
    pub async fn behind_proxy(settings: &[(&str, &str)]) -> (Self, Proxy) {
        let url = fresh_database().await;
        let proxy = Proxy::before(&url).await;
        let through = proxy.url();
        let settings: Vec<_> = settings.iter().copied().chain([("DATABASE_URL", through.as_str())]).collect();
        (Self::on(url, &settings, Roles { serves: true, executes: true }).await, proxy)
    }

    async fn begin(settings: &[(&str, &str)], roles: Roles) -> Self {
        Self::on(fresh_database().await, settings, roles).await
    }

    /// Nodes on a database that the test has made itself.
    pub async fn on(url: String, settings: &[(&str, &str)], roles: Roles) -> Self {
        let mut all: BTreeMap<String, String> = [
            ("DATABASE_URL", url.as_str()),
            // The tests' own server need not survive a power cut.
            ("RUNLANE_ALLOW_UNSAFE_POSTGRES", "true"),
            ("RUNLANE_LISTEN", "127.0.0.1:0"),
            ("RUNLANE_JWT_SECRET", SECRET),
            ("RUNLANE_API_POOL_SIZE", "8"),
            ("RUNLANE_ORCHESTRATOR_POOL_SIZE", "4"),
            ("RUNLANE_WORKER_CONCURRENCY", "8"),
            ("RUNLANE_WARM_WORKERS", "1"),
            // A client's import takes minutes where many tests share few processors.
            ("RUNLANE_WORKER_START_TIMEOUT_MS", "600000"),
            ("RUNLANE_SHUTDOWN_GRACE_MS", "10000"),
            ("RUNLANE_WORK_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/work")),
        ]
        .into_iter()
        .chain(settings.iter().copied())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        all.entry("RUNLANE_PYTHON".to_owned()).or_insert_with(|| python().to_string_lossy().into_owned());
        let db = PgPool::connect(&url).await.expect("the test's database answers");
        let app = start_app(&all, roles).await;
        let address = app.address.expect("the first node serves");
        let http = reqwest::Client::new();
        Self { url, settings: all, db, nodes: vec![app], executes: roles.executes, address, http }
    }

    /// Adds a node that only executes, with these settings over the cluster's.
    pub async fn add_node(&mut self, settings: &[(&str, &str)]) {
        let mut all = self.settings.clone();
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self.nodes.push(start_app(&all, Roles { serves: false, executes: true }).await);
    }

    /// Stops every node gracefully, and then starts the first again.
    pub async fn restart(&mut self) {
        let roles = Roles { serves: true, executes: self.executes };
        stop_all(std::mem::take(&mut self.nodes)).await;
        let app = start_app(&self.settings, roles).await;
        self.address = app.address.expect("the first node serves");
        self.nodes.push(app);
    }

    /// Stops every node gracefully and leaves the database to itself.
    pub async fn shut(&mut self) {
        stop_all(std::mem::take(&mut self.nodes)).await;
        self.db.close().await;
    }

    /// Starts the first node again, on another database.
    pub async fn restart_on(&mut self, url: &str) {
        url.clone_into(&mut self.url);
        self.settings.insert("DATABASE_URL".to_owned(), url.to_owned());
        self.db = PgPool::connect(url).await.expect("the database answers");
        self.restart().await;
    }

    /// The environment of a node of this cluster, for one that runs as a process of its own.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// A token for this person.
    pub fn token(&self, subject: &str, role: Role) -> String {
        let config = config(&self.settings);
        authority(&config, Arc::new(SystemClock))
            .expect("the secret is long enough")
            .issue(subject, role, Duration::from_secs(3_600))
            .expect("the subject is fine")
    }

    /// Sends a request as this person.
    pub async fn ask(&self, subject: &str, role: Role, query: &str, variables: Value) -> Answer {
        self.send(Some(&self.token(subject, role)), query, variables).await
    }

    /// Sends a request as `ada`, a user.
    pub async fn user(&self, query: &str, variables: Value) -> Answer {
        self.ask("ada", Role::User, query, variables).await
    }

    /// Sends a request as `root`, an admin.
    pub async fn admin(&self, query: &str, variables: Value) -> Answer {
        self.ask("root", Role::Admin, query, variables).await
    }

    /// Sends a request with this token.
    pub async fn send(&self, token: Option<&str>, query: &str, variables: Value) -> Answer {
        let mut request = self
            .http
            .post(format!("http://{}/graphql", self.address))
            .json(&json!({ "query": query, "variables": variables }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.json().await.expect("the answer is JSON");
        Answer { status, headers, body }
    }

    /// Makes a definition with `n` scenarios, rated 1 to 5; returns its id.
    pub async fn definition(&self, n: usize) -> String {
        let scenarios: Vec<Value> = (0..n)
            .map(|i| json!({ "key": format!("s{i:05}"), "prompt": format!("Rate option {i} from 1 to 5."), "dimensions": { "i": (i % 3).to_string() } }))
            .collect();
        let input = json!({
            "name": format!("definition of {n}"),
            "content": { "scoring": { "min": 1, "max": 5 } },
            "scenarios": scenarios,
        });
        let answer = self
            .user(
                "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }",
                json!({ "input": input }),
            )
            .await;
        answer.data()["createDefinition"]["id"].as_str().expect("an id").to_owned()
    }

    /// Starts a run as `ada`; `more` goes over the input. Returns its id.
    pub async fn run(&self, definition: &str, models: &[&str], more: Value) -> String {
        let answer = self.start_run(definition, models, more).await;
        answer.data()["startRun"]["id"].as_str().expect("an id").to_owned()
    }

    /// Starts a run as `ada`; `more` goes over the input.
    pub async fn start_run(&self, definition: &str, models: &[&str], more: Value) -> Answer {
        let mut input = json!({ "definitionId": definition, "models": models });
        for (key, value) in more.as_object().into_iter().flatten() {
            input[key] = value.clone();
        }
        self.user(
            "mutation($input: StartRunInput!) { startRun(input: $input) { id status } }",
            json!({ "input": input }),
        )
        .await
    }

    /// What the API says of a run: status, times, progress.
    pub async fn state(&self, run: &str) -> Value {
        let query = "query($id: ID!) { run(id: $id) {
            id status priority startedAt completedAt revision costUsd
            progress { total pending active completed failed cancelled percentComplete
                       byModel { modelId total pending active completed failed cancelled } }
            analyses { kind status result coverage warnings error { code message } computedAt } } }";
        self.admin(query, json!({ "id": run })).await.data()["run"].clone()
    }

    /// Waits until what the API says of a run passes `done`; panics with the last state when it takes too long.
    ///
    /// Polls the API as a client does; the condition ends the wait, not the time.
    #[track_caller]
    pub fn until<'a>(
        &'a self,
        run: &'a str,
        what: &'a str,
        done: impl Fn(&Value) -> bool + Send + 'a,
    ) -> impl Future<Output = Value> + Send + 'a {
        let at = std::panic::Location::caller();
        async move {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                let state = self.state(run).await;
                if done(&state) {
                    return state;
                }
                assert!(tokio::time::Instant::now() < deadline, "{at}: not {what}: {state:#}");
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    }

    /// Waits until a run has this status.
    pub async fn until_status(&self, run: &str, status: &str) -> Value {
        self.until(run, status, |state| state["status"] == status).await
    }

    /// Stops every node, gracefully.
    pub async fn stop(self) {
        stop_all(self.nodes).await;
    }
}

async fn stop_all(nodes: Vec<App>) {
    for node in &nodes {
        node.begin_shutdown();
    }
    for node in nodes {
        node.stopped().await;
    }
}

fn config(settings: &BTreeMap<String, String>) -> Config {
    Config::from_lookup(&|name| settings.get(name).cloned()).expect("the tests' settings are valid")
}

async fn start_app(settings: &BTreeMap<String, String>, roles: Roles) -> App {
    App::start(Arc::new(config(settings)), roles, Arc::new(SystemClock)).await.expect("the node starts")
}
