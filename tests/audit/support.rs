//! What the tests of the audit share.

use runlane::domain::Role;
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::support::app::{Answer, Cluster};

/// One entry on record.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Entry {
    pub id: i64,
    pub actor: String,
    pub role: Option<String>,
    pub request_id: Option<String>,
    pub action: String,
    pub subject_kind: String,
    pub subject_id: String,
    pub run_id: Option<Uuid>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub note: Option<String>,
}

/// The whole audit, oldest first.
pub async fn entries(db: &PgPool) -> Vec<Entry> {
    sqlx::query_as("select * from audit order by id").fetch_all(db).await.unwrap()
}

/// The entries of these actions, oldest first.
pub async fn of(db: &PgPool, actions: &[&str]) -> Vec<Entry> {
    entries(db).await.into_iter().filter(|e| actions.contains(&e.action.as_str())).collect()
}

/// How many entries there are.
pub async fn count(db: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from audit").fetch_one(db).await.unwrap()
}

/// Sends a mutation of one field that returns an object with an id, as this person.
pub async fn send(cluster: &Cluster, subject: &str, role: Role, call: &str, id: &str) -> Answer {
    let variables = if call.contains("$id") { "($id: ID!)" } else { "" };
    cluster
        .ask(subject, role, &format!("mutation{variables} {{ it: {call} {{ id }} }}"), json!({ "id": id }))
        .await
}

/// Does this as `ada`; returns the request's id.
#[track_caller]
pub fn did<'a>(cluster: &'a Cluster, call: &'a str, id: &'a str) -> impl Future<Output = String> + 'a {
    let at = std::panic::Location::caller();
    async move {
        let answer = send(cluster, "ada", Role::User, call, id).await;
        assert!(answer.body.get("errors").is_none(), "{at}: {call}: {}", answer.body);
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    }
}

/// The newest probe of a run.
pub async fn newest_job(db: &PgPool, run: &str) -> String {
    let id: i64 = sqlx::query_scalar(
        "select max(j.id) from current_job j join lane l on l.id = j.lane_id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(run)
    .fetch_one(db)
    .await
    .unwrap();
    id.to_string()
}
