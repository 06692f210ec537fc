//! Connections: graceful shutdown, its end, and clients that never say anything.

use std::time::Duration;

use runlane::http::ShutdownOutcome;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{GRAPHQL, Server, options};

/// Sends bytes as they are and reads until the server closes.
pub async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn slow(server: &Server) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
    tokio::spawn(server.post(GRAPHQL).body(json!({"query": "{ slow }"}).to_string()).send())
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_new_connections_are_refused() {
    let mut server = Server::start().await;
    let running = slow(&server);
    server.stage.begun.acquire().await.unwrap().forget();
    // An idle connection must not hold the server up.
    let idle = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();

    server.shutdown.cancel();
    let mut ended = server.ended.take().unwrap();
    // The listener is closed as soon as the server has noticed.
    while TcpStream::connect(server.base.trim_start_matches("http://")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(futures_util::poll!(&mut ended).is_pending(), "it must wait for the request");
    server.stage.go.add_permits(1);
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert_eq!(ended.await.unwrap().unwrap(), ShutdownOutcome::Drained);
    drop(idle);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut() {
    let minute = Duration::from_secs(60);
    let mut server = Server::start_full(options(), Duration::from_millis(50), minute).await;
    let running = slow(&server);
    server.stage.begun.acquire().await.unwrap().forget();
    server.shutdown.cancel();
    let outcome = server.ended.take().unwrap().await.unwrap().unwrap();
    assert_eq!(outcome, ShutdownOutcome::Cut { connections: 1 });
    assert!(running.await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_that_sends_no_whole_head_is_let_go() {
    let minute = Duration::from_secs(60);
    let server = Server::start_full(options(), minute, Duration::from_millis(50)).await;
    for bytes in [&b""[..], b"POST /graphql HTTP/1.1\r\nHost: x\r\n"] {
        // Returns only because the server closes.
        let answer = raw(&server, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}
