//! A real server over TCP with a schema made for these tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::{Context, EmptySubscription, Error, ErrorExtensions as _, Object, Result, Schema};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{RequestBuilder, Response};
use runlane::auth::Authority;
use runlane::domain::clock::SystemClock;
use runlane::domain::{RequestId, Requester, Role};
use runlane::http::{
    Completed, DatabaseHealth, HealthReport, HttpOptions, PoolHealth, Probes, Readiness, ShutdownOutcome,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const GRAPHQL: &str = "application/graphql-response+json";
pub const JSON: &str = "application/json";

/// What tests see of the resolvers, and say to them.
pub struct Stage {
    /// Mutations that ran.
    pub touched: AtomicUsize,
    /// One permit for each `slow` that has begun.
    pub begun: Semaphore,
    /// One permit lets one `slow` finish.
    pub go: Semaphore,
    /// What the probes say.
    pub health: Mutex<HealthReport>,
    pub readiness: Mutex<Readiness>,
}

pub struct Query;

#[Object]
impl Query {
    async fn hello(&self) -> &str {
        "world"
    }
    async fn maybe(&self) -> Option<i32> {
        Some(1)
    }
    async fn echo(&self, text: String) -> String {
        text
    }
    async fn small(&self, #[graphql(validator(maximum = 5))] n: i32) -> i32 {
        n
    }
    async fn whoami(&self, ctx: &Context<'_>) -> Result<String> {
        let requester = ctx.data::<Requester>()?;
        Ok(format!("{} {}", requester.subject, requester.role))
    }
    async fn request_id(&self, ctx: &Context<'_>) -> Result<String> {
        Ok(ctx.data::<RequestId>()?.0.clone())
    }
    async fn fail(&self, code: String, retry_after_ms: Option<i32>) -> Result<Option<i32>> {
        Err(coded(&code, retry_after_ms))
    }
    async fn fail_hard(&self, code: String) -> Result<i32> {
        Err(coded(&code, None))
    }
    async fn node(&self) -> Node {
        Node
    }
    async fn maybe_node(&self) -> Option<Node> {
        Some(Node)
    }
    async fn nodes(&self) -> Vec<Node> {
        vec![Node]
    }
    async fn maybe_nodes(&self) -> Vec<Option<Node>> {
        vec![Some(Node), None]
    }
    async fn uncoded(&self) -> Result<Option<i32>> {
        Err(Error::new("relation \"runs\" does not exist"))
    }
    async fn boom(&self, #[graphql(default = true)] really: bool) -> i32 {
        assert!(!really, "a secret detail");
        1
    }
    async fn slow(&self, ctx: &Context<'_>) -> Result<i32> {
        let stage = ctx.data::<Arc<Stage>>()?;
        stage.begun.add_permits(1);
        stage.go.acquire().await.expect("never closed").forget();
        Ok(1)
    }
}

/// An object of which parts fail.
pub struct Node;

#[Object]
impl Node {
    async fn good(&self) -> i32 {
        1
    }
    async fn late(&self) -> i32 {
        tokio::task::yield_now().await;
        2
    }
    async fn bad(&self) -> Result<Option<i32>> {
        Err(coded("CONFLICT", None))
    }
    async fn bad_hard(&self) -> Result<i32> {
        Err(coded("CONFLICT", None))
    }
    async fn child(&self) -> Node {
        Node
    }
    async fn maybe_child(&self) -> Option<Node> {
        Some(Node)
    }
}

fn coded(code: &str, retry_after_ms: Option<i32>) -> Error {
    Error::new("as asked").extend_with(|_, extensions| {
        extensions.set("code", code);
        if let Some(ms) = retry_after_ms {
            extensions.set("retryAfterMs", ms);
        }
    })
}

pub struct Mutation;

#[Object]
impl Mutation {
    async fn touch(&self, ctx: &Context<'_>) -> Result<i32> {
        ctx.data::<Arc<Stage>>()?.touched.fetch_add(1, Ordering::SeqCst);
        ctx.insert_http_header("X-Batch-ID", "batch-7");
        ctx.insert_http_header("Content-Type", "text/html");
        Ok(1)
    }
}

struct StageProbes(Arc<Stage>);

impl Probes for StageProbes {
    async fn health(&self) -> HealthReport {
        self.0.health.lock().unwrap().clone()
    }
    async fn ready(&self) -> Readiness {
        self.0.readiness.lock().unwrap().clone()
    }
}

pub struct Server {
    pub base: String,
    pub stage: Arc<Stage>,
    pub authority: Arc<Authority>,
    pub client: reqwest::Client,
    pub shutdown: CancellationToken,
    pub ended: Option<JoinHandle<std::io::Result<ShutdownOutcome>>>,
}

pub fn options() -> HttpOptions {
    HttpOptions {
        cors_origins: Vec::new(),
        cors_max_age: Duration::from_secs(600),
        body_max_bytes: 100_000,
        request_timeout: Duration::from_secs(60),
        retry_after: Duration::from_millis(1500),
        documents_kept: 2,
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(options()).await
    }

    pub async fn start_with(options: HttpOptions) -> Self {
        Self::start_full(options, Duration::from_secs(60), Duration::from_secs(60)).await
    }

    pub async fn start_full(options: HttpOptions, grace: Duration, header_timeout: Duration) -> Self {
        let stage = Arc::new(Stage {
            touched: AtomicUsize::new(0),
            begun: Semaphore::new(0),
            go: Semaphore::new(0),
            health: Mutex::new(HealthReport {
                database: DatabaseHealth { reachable: true, latency_ms: Some(0.5) },
                pools: vec![PoolHealth { name: "api".into(), size: 2, idle: 1, max: 16 }],
                problems: Vec::new(),
            }),
            readiness: Mutex::new(Readiness::Ready),
        });
        let schema = Schema::build(Query, Mutation, EmptySubscription).data(stage.clone()).finish();
        let secret = "a test secret of at least thirty-two bytes".to_owned().into();
        let authority =
            Arc::new(Authority::new(&secret, "runlane", "runlane", Arc::new(SystemClock)).unwrap());
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        registry.register("toys", "Toys made", counter);
        let router = runlane::http::router(
            Completed::from(schema),
            authority.clone(),
            StageProbes(stage.clone()),
            Arc::new(registry),
            options,
            axum::Router::new(),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let ended =
            tokio::spawn(runlane::http::serve(listener, router, shutdown.clone(), grace, header_timeout));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base, stage, authority, client, shutdown, ended: Some(ended) }
    }

    pub fn token(&self) -> String {
        self.authority.issue("ada", Role::User, Duration::from_secs(600)).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A POST to `/graphql` with a token and without a body.
    pub fn post(&self, accept: &str) -> RequestBuilder {
        self.client
            .post(self.url("/graphql"))
            .header(AUTHORIZATION, format!("Bearer {}", self.token()))
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, JSON)
    }

    /// A GET of `/graphql` with a token.
    pub fn get(&self, accept: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = reqwest::Url::parse(&self.url("/graphql")).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        self.client.get(url).header(AUTHORIZATION, format!("Bearer {}", self.token())).header(ACCEPT, accept)
    }

    pub async fn query(&self, accept: &str, query: &str) -> Answer {
        Answer::read(self.post(accept).body(json!({"query": query}).to_string())).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A response whose body has been read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn read(request: RequestBuilder) -> Self {
        Self::of(request.send().await.unwrap()).await
    }

    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {:?}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    /// The answer is one GraphQL-shaped error that nothing was executed for; its code.
    pub fn refused(&self) -> (u16, String, String) {
        let body = self.json();
        let object = body.as_object().unwrap();
        assert!(!object.contains_key("data"), "{body}");
        let errors = object["errors"].as_array().unwrap();
        let code = errors[0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{body}"));
        (self.status, code.to_owned(), errors[0]["message"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str, message_has: &str) {
        let (got_status, got_code, message) = self.refused();
        assert_eq!((got_status, got_code.as_str()), (status, code), "{message}");
        assert!(message.contains(message_has), "{message:?} lacks {message_has:?}");
    }
}
