//! GraphQL over HTTP: methods, media types, parameters.

use std::sync::atomic::Ordering;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;

use super::support::{Answer, GRAPHQL, JSON, Server, options};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

#[tokio::test]
async fn a_query_is_answered_in_the_media_type_that_was_asked_for() {
    let server = Server::start().await;
    for (accept, expected) in [
        (GRAPHQL, GRAPHQL),
        (JSON, JSON),
        ("*/*", JSON),
        ("application/graphql-response+json, application/json;q=0.9", GRAPHQL),
        ("application/graphql-response+json;q=0.1, application/json", JSON),
        ("text/html;q=0.1, application/json", JSON),
    ] {
        let answer = server.query(accept, "{ hello }").await;
        assert_eq!(answer.status, 200, "{accept}");
        assert_eq!(answer.header("content-type").unwrap(), format!("{expected}; charset=utf-8"), "{accept}");
        assert_eq!(answer.json(), json!({"data": {"hello": "world"}}));
        assert!(answer.header("vary").unwrap().contains("accept"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_wants_is_406() {
    let server = Server::start().await;
    for accept in ["image/png", "application/json;q=0", "text/html", "application/json; charset=utf-16"] {
        server.query(accept, "{ hello }").await.assert_refused(406, "VALIDATION_ERROR", "Accept");
    }
    Answer::read(server.get("image/png", &[("query", "{ hello }")])).await.assert_refused(
        406,
        "VALIDATION_ERROR",
        "Accept",
    );
}

#[tokio::test]
async fn only_json_in_plain_utf8_is_taken() {
    let server = Server::start().await;
    let body = json!({"query": "{ hello }"}).to_string();
    let post = |kind: Option<&str>| {
        let mut request = server.client.post(server.url("/graphql")).bearer_auth(server.token());
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        Answer::read(request.body(body.clone()))
    };
    assert_eq!(post(Some("application/json; charset=UTF-8")).await.status, 200);
    for kind in
        [None, Some("text/plain"), Some("application/graphql"), Some("application/x-www-form-urlencoded")]
    {
        post(kind).await.assert_refused(415, "VALIDATION_ERROR", "Content-Type");
    }
    post(Some("application/json; charset=latin1")).await.assert_refused(415, "VALIDATION_ERROR", "charset");
    let encoded = server.post(JSON).header(CONTENT_ENCODING, "gzip").body(body.clone());
    let answer = Answer::read(encoded).await;
    answer.assert_refused(415, "VALIDATION_ERROR", "Content-Encoding");
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
    let plain = server.post(JSON).header(CONTENT_ENCODING, "identity").body(body);
    assert_eq!(Answer::read(plain).await.status, 200);
}

#[tokio::test]
async fn malformed_bodies_are_400_and_say_what_is_wrong() {
    let server = Server::start().await;
    for (body, says) in [
        (&b""[..], "empty"),
        (b"{ \"query", "not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"null", "object"),
        (b"\"{ hello }\"", "object"),
        (b"[]", "batches"),
        (br#"[{"query":"{ hello }"}]"#, "batches"),
        (b"{}", "`query` is missing"),
        (br#"{"query":null}"#, "`query` is missing"),
        (br#"{"query":"  "}"#, "`query` is empty"),
        (br#"{"query":7}"#, "`query` must be a string, not a number"),
        (br#"{"query":["{ hello }"]}"#, "an array"),
        (br#"{"query":"{ hello }","variables":"{}"}"#, "`variables` must be an object, not a string"),
        (br#"{"query":"{ hello }","variables":[]}"#, "`variables`"),
        (br#"{"query":"{ hello }","operationName":{}}"#, "`operationName` must be a string"),
        (br#"{"query":"{ hello }","extensions":false}"#, "`extensions` must be an object, not a boolean"),
    ] {
        for accept in [JSON, GRAPHQL] {
            let answer = Answer::read(server.post(accept).body(body)).await;
            answer.assert_refused(400, "VALIDATION_ERROR", says);
            assert_eq!(answer.header("content-type").unwrap(), format!("{accept}; charset=utf-8"));
        }
    }
}

#[tokio::test]
async fn null_and_absent_parameters_mean_the_same_and_unknown_ones_are_ignored() {
    let server = Server::start().await;
    let body =
        json!({"query": "{ hello }", "variables": null, "operationName": null, "extensions": null, "id": 1});
    let answer = Answer::read(server.post(GRAPHQL).body(body.to_string())).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"data": {"hello": "world"}})));
}

#[tokio::test]
async fn variables_and_operation_name_are_used() {
    let server = Server::start().await;
    let query = "query A { hello } query B($t: String!) { echo(text: $t) }";
    let body = json!({"query": query, "operationName": "B", "variables": {"t": "π\u{0}🏃"}, "extensions": {"a": [1]}});
    let answer = Answer::read(server.post(GRAPHQL).body(body.to_string())).await;
    assert_eq!(answer.json(), json!({"data": {"echo": "π\u{0}🏃"}}));
    for operation in [None, Some("C")] {
        let body = json!({"query": query, "operationName": operation, "variables": {"t": "x"}});
        let answer = Answer::read(server.post(GRAPHQL).body(body.to_string())).await;
        answer.assert_refused(400, "VALIDATION_ERROR", "peration");
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_executed_is_400_in_the_new_media_type_and_200_in_the_old() {
    let server = Server::start().await;
    for (query, variables) in [
        ("{", json!({})),
        ("{ nothing }", json!({})),
        ("query A($id: ID!) { hello }", json!({"id": null})),
        ("query A($id: ID!) { hello }", json!({})),
        ("query A($t: String!) { echo(text: $t) }", json!({"t": 7})),
        ("{ echo(text: 7) }", json!({})),
        ("subscription { hello }", json!({})),
        ("fragment F on Query { hello }", json!({})),
    ] {
        let body = json!({"query": query, "variables": variables}).to_string();
        Answer::read(server.post(GRAPHQL).body(body.clone())).await.assert_refused(
            400,
            "VALIDATION_ERROR",
            "",
        );
        Answer::read(server.post(JSON).body(body)).await.assert_refused(200, "VALIDATION_ERROR", "");
    }
    let default = json!({"query": "query A($t: String! = \"x\") { echo(text: $t) }"}).to_string();
    assert_eq!(Answer::read(server.post(GRAPHQL).body(default)).await.status, 200);
}

#[tokio::test]
async fn a_parse_error_says_where_and_what_in_one_line() {
    let server = Server::start().await;
    let answer = server.query(GRAPHQL, "{ hello\n }}").await;
    answer.assert_refused(400, "VALIDATION_ERROR", "cannot be parsed at line 2, column 3: expected ");
    assert!(!answer.refused().2.contains('\n'), "{}", answer.text);
    assert_eq!(answer.json()["errors"][0]["locations"], json!([{"line": 2, "column": 3}]));
}

#[tokio::test]
async fn a_document_that_nests_without_end_is_refused_and_harms_nobody() {
    let server =
        Server::start_with(runlane::http::HttpOptions { body_max_bytes: 2_000_000, ..options() }).await;
    for query in [
        "{a".repeat(100_000),
        format!("{{ echo(text: {} }}", "[".repeat(500_000)),
        format!("query A($x: {}) {{ hello }}", "[".repeat(500_000)),
        format!("{{ echo(text: {} }}", "{a:".repeat(200_000)),
        "{hello ...".repeat(100_000),
    ] {
        server.query(GRAPHQL, &query).await.assert_refused(400, "VALIDATION_ERROR", "");
    }
    let variables = format!(r#"{{"query":"{{ hello }}","variables":{{"a":{}"#, "[".repeat(500_000));
    Answer::read(server.post(GRAPHQL).body(variables)).await.assert_refused(
        400,
        "VALIDATION_ERROR",
        "not JSON",
    );
    assert_eq!(server.query(GRAPHQL, "{ hello }").await.status, 200);
}

#[tokio::test]
async fn get_executes_queries() {
    let server = Server::start().await;
    let pairs = [
        ("query", "query A { hello } query B($t: String!) { echo(text: $t) }"),
        ("operationName", "B"),
        ("variables", r#"{"t":"a b&c"}"#),
        ("extensions", ""),
        ("other", "ignored"),
    ];
    let answer = Answer::read(server.get(GRAPHQL, &pairs)).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"data": {"echo": "a b&c"}})));
}

#[tokio::test]
async fn get_with_wrong_parameters_is_400() {
    let server = Server::start().await;
    for (pairs, says) in [
        (&[][..], "`query` is missing"),
        (&[("query", "{ hello }"), ("variables", "{")][..], "`variables` is not JSON"),
        (&[("query", "{ hello }"), ("variables", "[]")][..], "`variables` must be an object"),
        (&[("query", "{ hello }"), ("extensions", "1")][..], "`extensions` must be an object"),
        (&[("query", "{ hello }"), ("query", "{ maybe }")][..], "given twice"),
    ] {
        Answer::read(server.get(JSON, pairs)).await.assert_refused(400, "VALIDATION_ERROR", says);
    }
}

#[tokio::test]
async fn get_never_executes_a_mutation() {
    let server = Server::start().await;
    for pairs in [
        &[("query", "mutation { touch }")][..],
        &[("query", "query A { hello } mutation B { touch }"), ("operationName", "B")][..],
    ] {
        for accept in [JSON, GRAPHQL] {
            let answer = Answer::read(server.get(accept, pairs)).await;
            answer.assert_refused(405, "VALIDATION_ERROR", "POST");
            assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
        }
    }
    assert_eq!(server.stage.touched.load(Ordering::SeqCst), 0);
    assert_eq!(server.query(JSON, "mutation { touch }").await.status, 200);
    assert_eq!(server.stage.touched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn head_and_options_are_answered_and_other_methods_are_405() {
    let server = Server::start().await;
    let call = |method: Method| {
        let url = reqwest::Url::parse_with_params(&server.url("/graphql"), [("query", "{ hello }")]).unwrap();
        Answer::read(server.client.request(method, url).bearer_auth(server.token()).header(ACCEPT, JSON))
    };
    let head = call(Method::HEAD).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), Some("application/json; charset=utf-8"));
    let allowed = Some("GET, HEAD, POST, OPTIONS");
    let options = call(Method::OPTIONS).await;
    assert_eq!((options.status, options.header("allow")), (204, allowed));
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = call(method).await;
        answer.assert_refused(405, "VALIDATION_ERROR", "POST");
        assert_eq!(answer.header("allow"), allowed);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413() {
    let server = Server::start().await;
    let limit = options().body_max_bytes;
    let body = |length: usize| {
        let frame = json!({"query": "{ hello }", "extensions": {"x": ""}}).to_string();
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len())))
    };
    assert_eq!(Answer::read(server.post(JSON).body(body(limit))).await.status, 200);
    for length in [limit + 1, limit * 3] {
        let answer = Answer::read(server.post(JSON).body(body(length))).await;
        answer.assert_refused(413, "VALIDATION_ERROR", "100000 bytes");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_also_when_its_length_is_not_announced() {
    let server = Server::start().await;
    let chunk = "x".repeat(1000);
    let mut raw = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        server.token()
    );
    for _ in 0..150 {
        raw.push_str(&format!("3e8\r\n{chunk}\r\n"));
    }
    raw.push_str("0\r\n\r\n");
    let answer = super::serving::raw(&server, raw.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("VALIDATION_ERROR"), "{answer}");
}

#[tokio::test]
async fn a_browser_gets_the_page_with_and_without_a_query_and_without_a_token() {
    let server = Server::start().await;
    for path in ["/graphql", "/graphql?query=%7Bhello%7D"] {
        let answer = Answer::read(server.client.get(server.url(path)).header(ACCEPT, BROWSER)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("http") && !policy.contains("unsafe-eval"), "{policy}");
    }
}

#[tokio::test]
async fn headers_that_resolvers_set_are_sent() {
    let server = Server::start().await;
    let answer = server.query(GRAPHQL, "mutation { touch }").await;
    assert_eq!(answer.header("x-batch-id"), Some("batch-7"));
    assert_eq!(answer.header("content-type").unwrap(), format!("{GRAPHQL}; charset=utf-8"));
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_can_read_it() {
    let server = Server::start().await;
    let query =
        json!({"query": "query A($t: String!) { echo(text: $t) }", "variables": {"t": "x".repeat(10_000)}});
    let answer =
        server.post(JSON).header("accept-encoding", "gzip").body(query.to_string()).send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert!(answer.bytes().await.unwrap().len() < 1000);
    let answer = server.post(JSON).body(query.to_string()).send().await.unwrap();
    assert!(answer.headers().get("content-encoding").is_none());
}

#[tokio::test]
async fn no_token_means_no_execution_and_no_introspection() {
    let server = Server::start().await;
    for query in
        ["{ hello }", "{ __typename }", "{ __schema { queryType { name } } }", "mutation { touch }", "{"]
    {
        let body = json!({"query": query}).to_string();
        let post = |authorization: Option<String>| {
            let mut request = server.client.post(server.url("/graphql")).header(CONTENT_TYPE, JSON);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            Answer::read(request.body(body.clone()))
        };
        let answer = post(None).await;
        answer.assert_refused(401, "UNAUTHENTICATED", "token is missing");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"runlane\""));
        let answer = post(Some("Bearer abc.def.ghi".into())).await;
        answer.assert_refused(401, "UNAUTHENTICATED", "malformed");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"runlane\", error=\"invalid_token\"")
        );
        assert!(!answer.text.contains("abc.def"), "{}", answer.text);
        let answer = post(Some(format!("Basic {}", server.token()))).await;
        answer.assert_refused(401, "UNAUTHENTICATED", "Bearer");
        let get = server
            .client
            .get(reqwest::Url::parse_with_params(&server.url("/graphql"), [("query", query)]).unwrap());
        Answer::read(get).await.assert_refused(401, "UNAUTHENTICATED", "token is missing");
    }
    let two = server.post(JSON).header(AUTHORIZATION, format!("Bearer {}", server.token()));
    Answer::read(two.body("{}")).await.assert_refused(401, "UNAUTHENTICATED", "send one");
    assert_eq!(server.stage.touched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn resolvers_know_who_asks() {
    let server = Server::start().await;
    let answer = server.query(JSON, "{ whoami }").await;
    assert_eq!(answer.json(), json!({"data": {"whoami": "ada user"}}));
}
