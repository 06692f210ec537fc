//! The API's rules over the real server: real HTTP, real PostgreSQL, and real workers where something must run.

mod bad_input;
mod codes;
mod definitions;
mod idempotency;
mod lists;
mod load;
mod results;
mod run_lists;
mod sampling;
mod waiting;

use std::collections::BTreeMap;

use runlane::domain::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::app::{Answer, Cluster};

const CREATE: &str = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id version scenarioCount } }";

/// Creates a definition as `ada`.
async fn create(cluster: &Cluster, input: &Value) -> Answer {
    cluster.user(CREATE, json!({ "input": input })).await
}

/// Creates a definition as `ada`; returns its id.
#[track_caller]
fn created(answer: &Answer) -> String {
    answer.data()["createDefinition"]["id"].as_str().expect("an id").to_owned()
}

/// Creates a definition with scenarios of these keys; returns its id.
async fn with_keys(cluster: &Cluster, name: &str, keys: impl IntoIterator<Item = String>) -> String {
    let scenarios: Vec<Value> = keys.into_iter().map(|k| json!({ "key": k, "prompt": "Well?" })).collect();
    created(&create(cluster, &json!({ "name": name, "content": {}, "scenarios": scenarios })).await)
}

/// A field of a run, as its owner sees it.
async fn of_run(cluster: &Cluster, run: &str, fields: &str) -> Value {
    let query = format!("query($id: ID!) {{ run(id: $id) {{ {fields} }} }}");
    cluster.user(&query, json!({ "id": run })).await.data()["run"].clone()
}

/// Calls a mutation that takes a run's id, as an admin.
async fn control(cluster: &Cluster, mutation: &str, run: &str) {
    let query = format!("mutation($id: ID!) {{ {mutation}(id: $id) {{ id }} }}");
    cluster.ask("root", Role::Admin, &query, json!({ "id": run })).await.data();
}

/// How many rows each table has.
async fn rows(db: &PgPool) -> BTreeMap<String, i64> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' order by 1",
    )
    .fetch_all(db)
    .await
    .expect("the tables can be listed");
    assert!(tables.len() > 10, "{tables:?}");
    let mut rows = BTreeMap::new();
    for table in tables {
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(db).await.expect("a table can be counted");
        rows.insert(table, count);
    }
    rows
}

/// The texts of a list.
#[track_caller]
fn texts(list: &Value, field: &str) -> Vec<String> {
    let texts = list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter();
    texts.map(|item| item[field].as_str().expect("a text").to_owned()).collect()
}
