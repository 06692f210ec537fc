//! The stub itself: what the other tests measure with must measure right.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stub::Stub;

async fn call(stub: &Stub, model: &str) -> reqwest::Response {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "How good is it?" }] });
    let request = reqwest::Client::new().post(format!("{}/chat/completions", stub.url()));
    request.bearer_auth("the-key").json(&body).send().await.expect("an answer")
}

#[tokio::test]
async fn the_stub_counts_what_it_takes_and_turns_away_what_is_beyond_its_ceiling() {
    let stub = Stub::start();
    stub.ceiling(Some(3), Some(2), Duration::from_secs(3_600)).await;
    let (first, second, looking) =
        tokio::join!(call(&stub, "rater?gate=1"), call(&stub, "rater?gate=1"), async {
            let seen = stub.until_in_flight(2).await;
            let third = call(&stub, "echo").await;
            stub.open().await;
            (seen.accepted, third)
        });
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    assert_eq!((looking.0, looking.1.status().as_u16()), (2, 429), "two at once");
    assert_eq!(looking.1.headers()["retry-after"], "1");
    assert_eq!(call(&stub, "echo").await.status().as_u16(), 200, "there is room again");
    let beyond = call(&stub, "echo").await;
    assert_eq!(beyond.status().as_u16(), 429, "three in a window");
    let wait: u64 = beyond.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    assert_eq!(beyond.json::<Value>().await.unwrap()["error"]["code"], "rate_limit_exceeded");
    let seen = stub.stats().await;
    assert_eq!(
        (seen.accepted, seen.rejected, seen.in_flight, seen.in_flight_max, seen.window_max),
        (3, 2, 0, 2, 3)
    );
    assert_eq!((seen.keys["the-key"], seen.models["echo"], seen.per_second.values().sum()), (5, 3, 3));
    assert!(seen.tokens > 0 && (seen.failed, seen.gone) == (0, 0), "{seen:?}");
    stub.reset().await;
    stub.ceiling(None, None, Duration::from_secs(60)).await;
    assert_eq!(call(&stub, "echo?fail=server").await.status().as_u16(), 500);
    let seen = stub.stats().await;
    assert_eq!((seen.accepted, seen.rejected, seen.failed), (1, 0, 1));
}
