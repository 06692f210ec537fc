//! Errors of resolvers: status, headers, and what must not get out.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{GRAPHQL, JSON, Server, options};

#[tokio::test]
async fn three_codes_decide_the_status_in_both_media_types() {
    let server = Server::start().await;
    for (code, status) in [("UNAUTHENTICATED", 401), ("RATE_LIMITED", 429), ("UNAVAILABLE", 503)] {
        for accept in [JSON, GRAPHQL] {
            for field in ["fail", "failHard"] {
                let answer = server.query(accept, &format!("{{ {field}(code: \"{code}\") }}")).await;
                assert_eq!(answer.status, status, "{code} {accept} {field}");
                assert_eq!(answer.json()["errors"][0]["extensions"]["code"], code);
                let waits = code != "UNAUTHENTICATED";
                assert_eq!(answer.header("retry-after"), waits.then_some("2"), "1500 ms, rounded up");
                assert_eq!(answer.header("www-authenticate").is_some(), !waits);
            }
        }
    }
}

#[tokio::test]
async fn retry_after_is_the_longest_wait_that_was_asked_for_in_whole_seconds() {
    let server = Server::start().await;
    for (query, seconds) in [
        ("{ fail(code: \"RATE_LIMITED\", retryAfterMs: 1) }", "1"),
        ("{ fail(code: \"RATE_LIMITED\", retryAfterMs: 3001) }", "4"),
        (
            "{ a: fail(code: \"UNAVAILABLE\", retryAfterMs: 9000) b: fail(code: \"UNAVAILABLE\", retryAfterMs: 5) }",
            "9",
        ),
    ] {
        assert_eq!(server.query(GRAPHQL, query).await.header("retry-after"), Some(seconds), "{query}");
    }
}

#[tokio::test]
async fn an_answer_with_data_is_200_even_if_a_part_failed() {
    let server = Server::start().await;
    for accept in [JSON, GRAPHQL] {
        let answer = server.query(accept, "{ hello fail(code: \"UNAVAILABLE\", retryAfterMs: 5000) }").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"], json!({"hello": "world", "fail": null}));
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
}

#[tokio::test]
async fn other_errors_of_resolvers_are_200_and_keep_their_data_entry() {
    let server = Server::start().await;
    for accept in [JSON, GRAPHQL] {
        for code in ["FORBIDDEN", "NOT_FOUND", "RUN_STATE_ERROR", "VALIDATION_ERROR", "CONFLICT", "INTERNAL"]
        {
            let answer = server.query(accept, &format!("{{ failHard(code: \"{code}\") }}")).await;
            assert_eq!(answer.status, 200, "{code}");
            assert_eq!(answer.json()["data"], Value::Null);
            assert!(answer.json().as_object().unwrap().contains_key("data"));
            assert_eq!(answer.json()["errors"][0]["extensions"]["code"], code);
            assert_eq!(answer.header("retry-after"), None);
        }
    }
}

#[tokio::test]
async fn an_argument_out_of_range_is_a_validation_error() {
    let server = Server::start().await;
    let answer = server.query(GRAPHQL, "{ small(n: 6) }").await;
    assert_eq!(answer.json()["errors"][0]["extensions"]["code"], "VALIDATION_ERROR", "{}", answer.text);
}

#[tokio::test]
async fn an_error_without_a_code_is_internal_and_its_text_stays_inside() {
    let server = Server::start().await;
    let log = super::observability::Log::capture();
    let answer = server.query(GRAPHQL, "{ uncoded }").await;
    let error = &answer.json()["errors"][0];
    assert_eq!(error["extensions"]["code"], "INTERNAL");
    assert_eq!(error["path"], json!(["uncoded"]));
    assert!(!answer.text.contains("relation"), "{}", answer.text);
    let id = error["extensions"]["errorId"].as_str().unwrap();
    let line = log.lines().into_iter().find(|l| l.contains(id)).expect("the id is in the log");
    assert!(line.contains("relation \\\"runs\\\" does not exist"), "{line}");
}

#[tokio::test]
async fn a_panic_is_500_with_an_id_and_the_server_lives_on() {
    let server = Server::start().await;
    let log = super::observability::Log::capture();
    let answer = server.query(GRAPHQL, "{ boom }").await;
    answer.assert_refused(500, "INTERNAL", "internal error");
    assert!(!answer.text.contains("secret detail"), "{}", answer.text);
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("content-type").unwrap(), format!("{GRAPHQL}; charset=utf-8"));
    let id = answer.json()["errors"][0]["extensions"]["errorId"].as_str().unwrap().to_owned();
    let line = log.lines().into_iter().find(|l| l.contains(&id)).expect("the id is in the log");
    assert!(line.contains("a secret detail"), "{line}");
    assert_eq!(server.query(GRAPHQL, "{ hello }").await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_503() {
    let options = runlane::http::HttpOptions { request_timeout: Duration::from_millis(100), ..options() };
    let server = Server::start_with(options).await;
    for accept in [JSON, GRAPHQL] {
        let answer = server.query(accept, "{ slow }").await;
        answer.assert_refused(503, "UNAVAILABLE", "100 ms");
        assert_eq!(answer.json()["errors"][0]["extensions"]["retryAfterMs"], 1500);
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert_eq!(answer.header("content-type").unwrap(), format!("{accept}; charset=utf-8"));
    }
}

#[tokio::test]
async fn a_field_that_fails_is_null_or_the_nearest_thing_above_that_may_be() {
    let server = Server::start().await;
    for (query, data) in [
        ("{ node { good bad } }", json!({"node": {"good": 1, "bad": null}})),
        ("{ node { bad } }", json!({"node": {"bad": null}})),
        ("{ node { good badHard } }", Value::Null),
        ("{ hello maybeNode { good badHard } }", json!({"hello": "world", "maybeNode": null})),
        ("{ maybeNode { badHard } }", json!({"maybeNode": null})),
        ("{ maybeNode { bad } }", json!({"maybeNode": {"bad": null}})),
        (
            "{ node { good maybeChild { child { badHard } } } }",
            json!({"node": {"good": 1, "maybeChild": null}}),
        ),
        ("{ nodes { good badHard } }", Value::Null),
        ("{ maybeNodes { good badHard } }", json!({"maybeNodes": [null, null]})),
        ("{ maybeNodes { good bad } }", json!({"maybeNodes": [{"good": 1, "bad": null}, null]})),
        ("{ a: maybeNode { x: badHard } b: maybeNode { x: good } }", json!({"a": null, "b": {"x": 1}})),
        (
            "{ maybeNode { ...F ... on Node { good } __typename } } fragment F on Node { maybeChild { badHard } }",
            json!({"maybeNode": {"maybeChild": null, "good": 1, "__typename": "Node"}}),
        ),
        (
            "{ maybeNode { child { good } child { bad } good @skip(if: true) } }",
            json!({"maybeNode": {"child": {"good": 1, "bad": null}}}),
        ),
    ] {
        let answer = server.query(GRAPHQL, query).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"], data, "{query}");
        assert!(!answer.json()["errors"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn fields_come_in_the_order_of_the_query() {
    let server = Server::start().await;
    let answer = server.query(GRAPHQL, "{ node { late good child { late bad good } } }").await;
    let data = "{\"data\":{\"node\":{\"late\":2,\"good\":1,\"child\":{\"late\":2,\"bad\":null,\"good\":1}}}";
    assert!(answer.text.starts_with(data), "{}", answer.text);
}
