//! `/live`, `/health`, `/ready`, `/metrics`, and paths that are none.

use runlane::http::Readiness;
use serde_json::json;

use super::support::{Answer, Server};

async fn get(server: &Server, path: &str) -> Answer {
    Answer::read(server.client.get(server.url(path))).await
}

#[tokio::test]
async fn live_is_200_whatever_the_rest_says() {
    let server = Server::start().await;
    server.stage.health.lock().unwrap().database.reachable = false;
    *server.stage.readiness.lock().unwrap() = Readiness::Draining;
    assert_eq!(get(&server, "/live").await.status, 200);
}

#[tokio::test]
async fn health_shows_figures_and_is_503_when_degraded() {
    let server = Server::start().await;
    let answer = get(&server, "/health").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "status": "ok",
            "database": {"reachable": true, "latencyMs": 0.5},
            "pools": [{"name": "api", "size": 2, "idle": 1, "max": 16}],
            "problems": [],
        })
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    server.stage.health.lock().unwrap().problems.push("the api pool is exhausted".into());
    let answer = get(&server, "/health").await;
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("degraded")));
    assert_eq!(answer.json()["problems"], json!(["the api pool is exhausted"]));
    {
        let mut health = server.stage.health.lock().unwrap();
        health.problems.clear();
        health.database.reachable = false;
    }
    assert_eq!(get(&server, "/health").await.status, 503);
}

#[tokio::test]
async fn ready_is_200_only_when_traffic_may_come() {
    let server = Server::start().await;
    for (readiness, status, body) in [
        (Readiness::Ready, 200, json!({"status": "ready"})),
        (Readiness::Starting, 503, json!({"status": "starting"})),
        (Readiness::Draining, 503, json!({"status": "draining"})),
        (
            Readiness::NotReady("no database".into()),
            503,
            json!({"status": "not ready", "reason": "no database"}),
        ),
    ] {
        *server.stage.readiness.lock().unwrap() = readiness;
        let answer = get(&server, "/ready").await;
        assert_eq!((answer.status, answer.json()), (status, body));
    }
}

#[tokio::test]
async fn metrics_are_the_registry_as_text() {
    let server = Server::start().await;
    let answer = get(&server, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.text.contains("toys_total 3\n") && answer.text.ends_with("# EOF\n"), "{}", answer.text);
}

#[tokio::test]
async fn unknown_paths_and_methods_get_an_error_of_the_usual_shape() {
    let server = Server::start().await;
    get(&server, "/nowhere").await.assert_refused(404, "NOT_FOUND", "path");
    get(&server, "/assets/../Cargo.toml").await.assert_refused(404, "NOT_FOUND", "");
    get(&server, "/assets/%2e%2e/index.html").await.assert_refused(404, "NOT_FOUND", "");
    let answer = Answer::read(server.client.post(server.url("/live"))).await;
    answer.assert_refused(405, "VALIDATION_ERROR", "GET");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    assert_eq!(Answer::read(server.client.head(server.url("/live"))).await.status, 200);
}
