//! Request ids and the access log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::support::{Answer, JSON, Server};

/// What is logged on this thread (a test's runtime has only one) for as long as this lives.
pub struct Log {
    bytes: Buffer,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    pub fn capture() -> Self {
        let bytes = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(bytes.clone())
            .finish();
        Self { bytes, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub fn lines(&self) -> Vec<String> {
        let bytes = self.bytes.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn access(&self) -> Vec<Value> {
        let lines = self.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        lines.filter(|l| l["target"] == "runlane::access").collect()
    }
}

#[tokio::test]
async fn every_response_has_a_request_id_of_its_own() {
    let server = Server::start().await;
    let mut seen = std::collections::HashSet::new();
    for path in ["/graphql", "/live", "/health", "/ready", "/metrics", "/nowhere", "/assets/none.js"] {
        let answer = Answer::read(server.client.get(server.url(path))).await;
        assert!(seen.insert(answer.header("x-request-id").expect(path).to_owned()));
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_given_to_resolvers() {
    let server = Server::start().await;
    for (given, kept) in [
        ("abc-123", true),
        (&"x".repeat(128), true),
        ("!~", true),
        (&"x".repeat(129), false),
        ("", false),
        ("a b", false),
        ("a\tb", false),
    ] {
        let body = json!({"query": "{ requestId }"}).to_string();
        let answer = Answer::read(server.post(JSON).header("X-Request-ID", given).body(body)).await;
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(id == given, kept, "{given:?} {id:?}");
        assert_eq!(answer.json()["data"]["requestId"], id);
    }
}

#[tokio::test]
async fn there_is_one_access_line_a_request_and_no_secret_in_any_line() {
    let server = Server::start().await;
    let log = Log::capture();
    let token = server.token();
    let body = json!({"query": "{ echo(text: \"body-secret\") }"}).to_string();
    let post = server
        .client
        .post(server.url("/graphql?x=query-secret"))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, JSON)
        .header("X-Request-ID", "req-1")
        .header("Cookie", "cookie-secret")
        .body(body);
    assert_eq!(Answer::read(post).await.status, 200);
    assert_eq!(Answer::read(server.client.get(server.url("/nowhere?x=query-secret"))).await.status, 404);
    let access = log.access();
    let brief: Vec<_> = access
        .iter()
        .map(|l| (l["fields"]["method"].clone(), l["fields"]["path"].clone(), l["fields"]["status"].clone()))
        .collect();
    assert_eq!(
        brief,
        [(json!("POST"), json!("/graphql"), json!(200)), (json!("GET"), json!("/nowhere"), json!(404))]
    );
    assert_eq!(access[0]["span"]["request_id"], "req-1");
    assert!(access[0]["fields"]["duration_ms"].as_f64().unwrap() > 0.0);
    // The client shares this thread and logs what it likes; the server's own lines are those of this crate.
    for line in log.lines().iter().filter(|l| l.contains("\"target\":\"runlane")) {
        assert!(!line.contains("-secret") && !line.contains(&token), "{line}");
    }
}
