//! Requests without a good token.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use runlane::auth::Authority;
use runlane::domain::Role;
use runlane::domain::clock::{Clock, SystemClock};
use secrecy::SecretString;
use serde_json::json;

use crate::support::app::{Cluster, SECRET};

/// A clock that is a day late.
struct Yesterday;

impl Clock for Yesterday {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() - chrono::TimeDelta::days(1)
    }
}

fn issue(secret: &str, issuer: &str, audience: &str, clock: Arc<dyn Clock>) -> String {
    Authority::new(&SecretString::from(secret), issuer, audience, clock)
        .expect("the secret is long enough")
        .issue("ada", Role::Admin, Duration::from_secs(3_600))
        .expect("the subject is fine")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_every_request_is_unauthenticated_and_changes_nothing() {
    let cluster = Cluster::api_only(&[]).await;
    let system = || Arc::new(SystemClock);
    let good = issue(SECRET, "runlane", "runlane", system());
    assert_eq!(cluster.send(Some(&good), "{ queueStatus { id } }", json!({})).await.status, 200);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let bad = [
        ("none", None),
        ("empty", Some(String::new())),
        ("garbage", Some("nonsense".to_owned())),
        ("expired", Some(issue(SECRET, "runlane", "runlane", Arc::new(Yesterday)))),
        ("another secret", Some(issue(&SECRET.replace('a', "b"), "runlane", "runlane", system()))),
        ("another issuer", Some(issue(SECRET, "elsewhere", "runlane", system()))),
        ("another audience", Some(issue(SECRET, "runlane", "elsewhere", system()))),
        ("no signature", Some(format!("{head}."))),
        ("a signature cut short", Some(format!("{head}.{}", &signature[..signature.len() - 4]))),
    ];
    for (what, token) in &bad {
        for query in ["{ queueStatus { id } }", "mutation { pauseQueue { id } }"] {
            let answer = cluster.send(token.as_deref(), query, json!({})).await;
            assert_eq!((answer.status, answer.code()), (401, "UNAUTHENTICATED"), "{what}: {}", answer.body);
            assert!(answer.body.get("data").is_none_or(serde_json::Value::is_null), "{what}");
            let message = answer.body["errors"][0]["message"].as_str().unwrap();
            assert!(!message.is_empty() && !message.contains(SECRET), "{what}: {message}");
        }
    }
    let status = cluster.user("{ queueStatus { isPaused } }", json!({})).await;
    assert_eq!(status.data()["queueStatus"]["isPaused"], false);
    cluster.stop().await;
}
