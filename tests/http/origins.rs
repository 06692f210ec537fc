//! Cross-origin requests.

use reqwest::Method;
use reqwest::header::ORIGIN;
use serde_json::json;

use super::support::{Answer, JSON, Server, options};

const FRIEND: &str = "https://app.example.org";

async fn server(origins: &[&str]) -> Server {
    let cors_origins = origins.iter().map(|o| (*o).to_owned()).collect();
    Server::start_with(runlane::http::HttpOptions { cors_origins, ..options() }).await
}

async fn preflight(server: &Server, origin: &str) -> Answer {
    let request = server
        .client
        .request(Method::OPTIONS, server.url("/graphql"))
        .header(ORIGIN, origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type");
    Answer::read(request).await
}

#[tokio::test]
async fn without_a_list_there_are_no_cors_headers() {
    let server = server(&[]).await;
    let request = server.post(JSON).header(ORIGIN, FRIEND).body(json!({"query": "{ hello }"}).to_string());
    for answer in [preflight(&server, FRIEND).await, Answer::read(request).await] {
        assert!(answer.headers.keys().all(|k| !k.as_str().starts_with("access-control")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_listed_origin_may_call_and_read_our_headers() {
    let server = server(&["https://other.example.org", FRIEND]).await;
    let answer = preflight(&server, FRIEND).await;
    assert!((200..300).contains(&answer.status));
    assert_eq!(answer.header("access-control-allow-origin"), Some(FRIEND));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("authorization") && allowed.contains("content-type"), "{allowed}");
    assert!(answer.header("access-control-allow-credentials").is_none());
    assert!(answer.header("x-request-id").is_some());

    // Errors too: a front-end must be able to read why it is refused.
    for token in [true, false] {
        let mut request =
            server.post(JSON).header(ORIGIN, FRIEND).body(json!({"query": "{ hello }"}).to_string());
        if !token {
            request = server.client.post(server.url("/graphql")).header(ORIGIN, FRIEND);
        }
        let answer = Answer::read(request).await;
        assert_eq!(answer.status, if token { 200 } else { 401 });
        assert_eq!(answer.header("access-control-allow-origin"), Some(FRIEND));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["x-request-id", "x-batch-id", "retry-after"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}

#[tokio::test]
async fn another_origin_gets_no_permission() {
    let server = server(&[FRIEND]).await;
    for origin in
        ["https://evil.example.org", "https://app.example.org.evil.org", "http://app.example.org", "null"]
    {
        let answer = preflight(&server, origin).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
}
