//! Leaders, and what has taken too long.

mod detector;
mod leader;
mod nodes;
mod policy;
mod surfaces;

use std::time::Duration;

use runlane::domain::leader::{Duty, Term};
use runlane::domain::staleness::Step;
use runlane::store::{Leadership, NewNode, Result, Store, Sweep};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::Cluster;

/// A node with a lease.
pub async fn register(store: &Store) -> Uuid {
    let id = runlane::domain::ids::new_id();
    let node = NewNode {
        id,
        name: "test".into(),
        version: "0".into(),
        executes: true,
        providers: vec!["mock".into()],
    };
    store.register_node(&node, Duration::from_secs(600)).await.unwrap();
    id
}

/// A detector under the test's control, on a cluster without nodes.
pub struct Detector {
    pub store: Store,
    pub node: Uuid,
    leadership: Leadership,
}

impl Detector {
    pub async fn begin(cluster: &Cluster) -> Self {
        let store = Store::new(cluster.db.clone());
        let node = register(&store).await;
        let leadership =
            store.take_leadership(Duty::Staleness, node).await.unwrap().expect("nobody else leads");
        Self { store, node, leadership }
    }

    pub fn term(&self) -> Term {
        self.leadership.term()
    }

    /// One step at jobs that wait.
    pub async fn waiting(&self, batch: i32) -> Result<Vec<Step>> {
        self.store.sweep_stale(self.term(), Sweep::Waiting, batch).await
    }

    /// One step at jobs in process, which are taken back at most twice and start again at once.
    pub async fn active(&self) -> Result<Vec<Step>> {
        let sweep = Sweep::Active { requeues_max: 2, delay_ms: 0 };
        self.store.sweep_stale(self.term(), sweep, 1_000).await
    }

    /// One step at runs.
    pub async fn runs(&self) -> Result<Vec<Step>> {
        self.store.sweep_stale(self.term(), Sweep::Runs, 1_000).await
    }
}

/// Makes a definition of `n` scenarios with this `lifecycle`; returns its id.
pub async fn definition(cluster: &Cluster, n: usize, lifecycle: Value) -> String {
    let scenarios: Vec<Value> =
        (0..n).map(|i| json!({ "key": format!("s{i}"), "prompt": format!("Say {i}.") })).collect();
    let input = json!({ "name": "lived", "content": { "lifecycle": lifecycle }, "scenarios": scenarios });
    let query = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id } }";
    let answer = cluster.user(query, json!({ "input": input })).await;
    answer.data()["createDefinition"]["id"].as_str().unwrap().to_owned()
}

/// Runs a statement of the test's own.
pub async fn sql(cluster: &Cluster, statement: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&cluster.db).await.unwrap();
}

/// One number that the database says.
pub async fn number(cluster: &Cluster, query: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&cluster.db).await.unwrap()
}

/// What each step did: stage, health, action and how many jobs.
pub fn said(steps: &[Step]) -> Vec<(&'static str, &'static str, &'static str, usize)> {
    steps.iter().map(|s| (s.stage.as_str(), s.health.as_str(), s.action.as_str(), s.jobs.len())).collect()
}

/// Jobs that acts of this name were recorded for, each as often as it was.
pub async fn audited(cluster: &Cluster, action: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "select j::bigint from audit a cross join lateral jsonb_array_elements_text(a.after -> 'jobs') as j
          where a.action = $1 and a.actor = 'system' order by 1",
    )
    .bind(action)
    .fetch_all(&cluster.db)
    .await
    .unwrap()
}

/// Waits for this line among the metrics of the first node.
pub async fn metric(cluster: &Cluster, line: &str) {
    let deadline = tokio::time::Instant::now() + crate::support::app::PATIENCE;
    loop {
        let response = reqwest::get(format!("http://{}/metrics", cluster.address)).await.unwrap();
        let text = response.text().await.unwrap();
        if text.lines().any(|l| l == line) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {line}: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
