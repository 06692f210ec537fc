//! The surface over real data: what each role sees and changes, and how mistakes are told.

use std::sync::Arc;

use async_graphql::{Executor, Request, Response, Variables};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use runlane::config::Config;
use runlane::domain::{RequestId, Requester, Role};
use runlane::graphql::{self, Schema};
use runlane::service::Service;
use runlane::store::Store;
use serde_json::{Value, json};

use super::TestDatabase;

/// The schema over a database of its own.
pub(crate) struct Surface {
    schema: Schema,
}

impl Surface {
    pub(crate) async fn create() -> Self {
        let database = TestDatabase::create(4).await;
        let config = Config::from_lookup(&|_| None).unwrap();
        let numbers = config.numbers.clone();
        let store = Store::new(database.pool().clone());
        let service = Service::new(store, Arc::new(config), ChaCha20Rng::seed_from_u64(1));
        Self { schema: graphql::schema(service, &numbers) }
    }

    pub(crate) async fn ask(&self, subject: &str, role: Role, query: &str, variables: Value) -> Response {
        let request = Request::new(query)
            .variables(Variables::from_json(variables))
            .data(Requester { subject: subject.to_owned(), role, group: None, request_id: "r".to_owned() })
            .data(RequestId("request-1".to_owned()));
        self.schema.execute(request).await
    }

    /// The data of an answer without errors.
    pub(crate) async fn data(&self, subject: &str, role: Role, query: &str, variables: Value) -> Value {
        let response = self.ask(subject, role, query, variables).await;
        assert!(response.errors.is_empty(), "{query}: {:?}", response.errors);
        response.data.into_json().unwrap()
    }

    /// The extensions of the first error.
    async fn refusal(&self, subject: &str, role: Role, query: &str, variables: Value) -> Value {
        let response = self.ask(subject, role, query, variables).await;
        let error = response.errors.first().unwrap_or_else(|| panic!("{query} is not refused"));
        serde_json::to_value(&error.extensions).unwrap()
    }

    /// A definition of four scenarios.
    pub(crate) async fn definition(&self) -> Value {
        let input = json!({"name": "tone", "content": {
            "template": "Is {what} {how}?",
            "dimensions": [{"name": "what", "values": ["a", "b"]}, {"name": "how", "values": ["x", "y"]}],
            "params": {"temperature": 0.5, "maxTokens": 9},
        }});
        let query = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id version scenarioCount } }";
        self.data("ada", Role::User, query, json!({"input": input})).await["createDefinition"].clone()
    }

    pub(crate) async fn start(&self, subject: &str, input: Value) -> Value {
        self.data(subject, Role::User, START, json!({"input": input})).await["startRun"].clone()
    }
}

const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) {
    id batchId status priority sampleSeed params revision estimatedTimeRemaining costUsd
    progress { total pending active percentComplete byModel { modelId total } }
    scenarios { totalCount nodes { key } }
} }";

#[tokio::test]
async fn a_run_is_started_seen_and_controlled_by_its_owner() {
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    assert_eq!((&definition["version"], &definition["scenarioCount"]), (&json!(1), &json!(4)));
    assert_eq!(surface.definition().await["version"], 2);

    let input = json!({"definitionId": definition["id"], "models": ["mock/b", "mock/a"], "samplePercentage": 50,
                       "params": {"maxTokens": 7}, "idempotencyKey": "k", "metadata": {"a": [1]}});
    let response = surface.ask("ada", Role::User, START, json!({"input": input})).await;
    let batch = response.http_headers.get("x-batch-id").cloned();
    let run = response.data.into_json().unwrap()["startRun"].clone();
    assert_eq!(batch.unwrap().to_str().unwrap(), run["batchId"].as_str().unwrap());
    assert_eq!(
        run["progress"],
        json!({"total": 4, "pending": 4, "active": 0, "percentComplete": 0.0,
        "byModel": [{"modelId": "mock/b", "total": 2}, {"modelId": "mock/a", "total": 2}]})
    );
    assert_eq!(run["params"], json!({"temperature": 0.5, "maxTokens": 7}));
    assert_eq!((&run["status"], &run["priority"]), (&json!("PENDING"), &json!("NORMAL")));
    assert_eq!(run["scenarios"]["totalCount"], 2);
    assert_eq!((&run["estimatedTimeRemaining"], &run["costUsd"]), (&Value::Null, &Value::Null));

    assert_eq!(
        surface.start("ada", input.clone()).await["id"],
        run["id"],
        "the same key and input: the same run"
    );
    let mut other = input.clone();
    other["name"] = json!("other");
    let refused = surface.refusal("ada", Role::User, START, json!({"input": other})).await;
    assert_eq!(refused["code"], "CONFLICT");
    assert_ne!(surface.start("bob", input).await["id"], run["id"], "keys are scoped to the user");

    let id = json!({"id": run["id"]});
    let pause = "mutation($id: ID!) { pauseRun(id: $id) { status revision } }";
    let paused = surface.data("ada", Role::User, pause, id.clone()).await["pauseRun"].clone();
    assert_eq!(paused["status"], "PAUSED");
    let number = |v: &Value| v["revision"].as_str().unwrap().parse::<i64>().unwrap();
    assert!(number(&paused) > number(&run), "{paused} {run}");
    let jobs = "query($id: ID!) { run(id: $id) { jobs(filter: {status: [PENDING]}) { totalCount nodes { waitingBecause } } } }";
    let waiting = surface.data("ada", Role::User, jobs, id.clone()).await["run"]["jobs"].clone();
    assert_eq!(waiting["totalCount"], 4);
    assert!(waiting["nodes"][0]["waitingBecause"].as_str().unwrap().starts_with("The run has been paused"));

    let cancel = "mutation($id: ID!) { cancelRun(id: $id) { status progress { cancelled percentComplete }
        jobs(filter: {type: [\"probe:scenario\"]}) { totalCount nodes { status completedAt waitingBecause } } } }";
    let cancelled = surface.data("ada", Role::User, cancel, id.clone()).await["cancelRun"].clone();
    assert_eq!(cancelled["progress"], json!({"cancelled": 4, "percentComplete": 100.0}));
    for job in cancelled["jobs"]["nodes"].as_array().unwrap() {
        assert_eq!((&job["status"], &job["waitingBecause"]), (&json!("CANCELLED"), &Value::Null));
        assert!(job["completedAt"].is_string());
    }
    let refused = surface.refusal("ada", Role::User, pause, id).await;
    assert_eq!(refused, json!({"code": "RUN_STATE_ERROR", "currentStatus": "CANCELLED", "action": "pause"}));
}

#[tokio::test]
async fn others_see_what_their_role_allows() {
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    let run = surface.start("ada", json!({"definitionId": definition["id"], "models": ["mock/a"]})).await;
    let id = json!({"id": run["id"]});
    let see = "query($id: ID!) { run(id: $id) { id jobs { nodes { id } } } runs { totalCount } }";
    let pause = "mutation($id: ID!) { pauseRun(id: $id) { id } }";
    for (subject, role, sees) in
        [("bob", Role::User, false), ("eve", Role::Viewer, true), ("root", Role::Admin, true)]
    {
        let seen = surface.data(subject, role, see, id.clone()).await;
        assert_eq!((seen["run"].is_object(), seen["runs"]["totalCount"] == 1), (sees, sees), "{subject}");
    }
    let seen = surface.data("ada", Role::User, see, id.clone()).await;
    let job = json!({"id": seen["run"]["jobs"]["nodes"][0]["id"]});
    let see_job = "query($id: ID!) { job(id: $id) { id } }";
    assert!(surface.data("bob", Role::User, see_job, job.clone()).await["job"].is_null());
    let cancel_job = "mutation($id: ID!) { cancelJob(id: $id) { status } }";
    assert_eq!(surface.refusal("bob", Role::User, cancel_job, job.clone()).await["code"], "NOT_FOUND");
    assert_eq!(
        surface.data("ada", Role::User, cancel_job, job.clone()).await["cancelJob"]["status"],
        "CANCELLED"
    );
    let refused =
        surface.refusal("ada", Role::User, "mutation($id: ID!) { retryJob(id: $id) { id } }", job).await;
    assert_eq!(refused["code"], "JOB_VALIDATION_ERROR");

    for nothing in [json!({"id": "nonsense"}), json!({"id": "00000000-0000-0000-0000-000000000001"})] {
        assert!(surface.data("ada", Role::User, see, nothing.clone()).await["run"].is_null());
        assert_eq!(surface.refusal("ada", Role::User, pause, nothing.clone()).await["code"], "NOT_FOUND");
        assert_eq!(surface.refusal("eve", Role::Viewer, pause, nothing).await["code"], "FORBIDDEN");
    }
    assert_eq!(surface.refusal("bob", Role::User, pause, id.clone()).await["code"], "NOT_FOUND");
    assert_eq!(surface.refusal("eve", Role::Viewer, pause, id).await["code"], "FORBIDDEN");

    let queue = "mutation($reason: String) { pauseQueue(reason: $reason) { id isPaused pausedBy pauseReason jobs { type pending } } }";
    assert_eq!(surface.refusal("ada", Role::User, queue, json!({})).await["code"], "FORBIDDEN");
    surface.data("root", Role::Admin, queue, json!({"reason": "first"})).await;
    let again =
        surface.data("other", Role::Admin, queue, json!({"reason": "second"})).await["pauseQueue"].clone();
    assert_eq!((&again["pausedBy"], &again["pauseReason"]), (&json!("root"), &json!("first")));
    assert_eq!(
        again["jobs"],
        json!([{"type": "probe:scenario", "pending": 3}, {"type": "analyze:basic", "pending": 0},
        {"type": "analyze:deep", "pending": 0}])
    );
}

#[tokio::test]
async fn mistakes_are_told_all_at_once_and_limits_hold() {
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    let bad =
        json!({"input": {"definitionId": definition["id"], "models": ["nobody/x"], "samplePercentage": 0}});
    let refused = surface.refusal("ada", Role::User, START, bad).await;
    let fields: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(refused["code"], "VALIDATION_ERROR");
    assert_eq!(fields.len(), 2, "{refused}");
    let missing = json!({"input": {"definitionId": "none", "models": ["mock/a"]}});
    assert_eq!(surface.refusal("ada", Role::User, START, missing).await["code"], "NOT_FOUND");

    let refused = surface
        .refusal("ada", Role::User, "{ runs(first: 0, after: \"zz\") { totalCount } }", json!({}))
        .await;
    let fields: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["first", "after"]);
    let long = "{ runs(first: 1000000) { nodes { jobs(first: 1000000) { nodes { id type } } } } }";
    surface.data("ada", Role::User, long, json!({})).await;
    let dear =
        "{ runs(first: 100) { nodes { jobs(first: 100) { nodes { id type status priority attempt } } } } }";
    let refused = surface.ask("ada", Role::User, dear, json!({})).await;
    assert_eq!(refused.errors[0].message, "Query is too complex.");
    let deep = format!(
        "{{ definitions {} }}",
        "{ nodes { runs { nodes { definition ".repeat(4) + "{ id }" + &"}}}}".repeat(4)
    );
    assert_eq!(
        surface.ask("ada", Role::User, &deep, json!({})).await.errors[0].message,
        "Query is nested too deep."
    );
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    let run =
        surface.start("ada", json!({"definitionId": definition["id"], "models": ["mock/a", "mock/b"]})).await;
    let query = "query($id: ID!, $after: String) { run(id: $id) { jobs(first: 3, after: $after) {
        totalCount nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor } } } }";
    let (mut after, mut seen, mut pages) = (Value::Null, Vec::new(), 0);
    loop {
        let variables = json!({"id": run["id"], "after": after});
        let jobs = surface.data("ada", Role::User, query, variables).await["run"]["jobs"].clone();
        assert_eq!(
            (&jobs["totalCount"], jobs["pageInfo"]["hasPreviousPage"] == json!(pages > 0)),
            (&json!(8), true)
        );
        seen.extend(
            jobs["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|j| j["id"].as_str().unwrap().parse::<i64>().unwrap()),
        );
        pages += 1;
        after = jobs["pageInfo"]["endCursor"].clone();
        if jobs["pageInfo"]["hasNextPage"] == json!(false) {
            break;
        }
    }
    assert_eq!((pages, seen.len()), (3, 8));
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
}
