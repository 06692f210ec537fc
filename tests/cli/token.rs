//! `runlane token`.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::process::{Home, SECRET as OWN_SECRET, finish};
use crate::support::app::{Cluster, SECRET};

async fn print(home: &Home, arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let mut command = home.runlane(&[&["token"], arguments].concat());
    command.env("RUNLANE_JWT_SECRET", SECRET).envs(settings.iter().copied());
    let output = finish(command).await.ok();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    output.stdout.trim().to_owned()
}

fn claims(token: &str, issuer: &str, audience: &str) -> Value {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims
}

#[tokio::test]
async fn the_server_accepts_it_in_its_role() {
    let home = Home::new();
    let cluster = Cluster::api_only(&[]).await;
    let pause = "mutation { pauseQueue(reason: \"lunch\") { pausedBy } }";
    for (role, code) in [("viewer", Some("FORBIDDEN")), ("user", Some("FORBIDDEN")), ("admin", None)] {
        let token = print(&home, &["--sub", "grace", "--role", role], &[]).await;
        assert_eq!(cluster.send(Some(&token), "{ queueStatus { isPaused } }", json!({})).await.status, 200);
        let answer = cluster.send(Some(&token), pause, json!({})).await;
        match code {
            Some(code) => assert_eq!(answer.code(), code, "{role}"),
            None => assert_eq!(answer.data()["pauseQueue"]["pausedBy"], "grace"),
        }
    }
    let other = print(&home, &["--sub", "a", "--role", "user"], &[("RUNLANE_JWT_ISSUER", "elsewhere")]).await;
    let answer = cluster.send(Some(&other), "{ queueStatus { isPaused } }", json!({})).await;
    assert_eq!((answer.status, answer.code()), (401, "UNAUTHENTICATED"));
    cluster.stop().await;
}

#[tokio::test]
async fn its_claims_are_those_that_were_asked_for() {
    let home = Home::new();
    for (ttl, seconds) in [(None, 86_400), (Some("90s"), 90), (Some("15m"), 900), (Some("7d"), 604_800)] {
        let mut arguments = vec!["--sub", "ada", "--role", "user"];
        arguments.extend(ttl.map(|ttl| ["--ttl", ttl]).into_iter().flatten());
        let claims = claims(&print(&home, &arguments, &[]).await, "runlane", "runlane");
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), seconds, "{claims}");
        assert_eq!((&claims["sub"], &claims["role"]), (&json!("ada"), &json!("user")));
    }
    let settings = [("RUNLANE_JWT_ISSUER", "them"), ("RUNLANE_JWT_AUDIENCE", "us")];
    let token = print(&home, &["--sub", "ada", "--role", "viewer"], &settings).await;
    assert_eq!(claims(&token, "them", "us")["role"], "viewer");
}

#[tokio::test]
async fn bad_input_is_refused_and_named() {
    let home = Home::new();
    let too_long = "x".repeat(201);
    for (arguments, part) in [
        (vec!["--role", "user"], "--sub"),
        (vec!["--sub", "ada"], "--role"),
        (vec!["--sub", "ada", "--role", "king"], "king"),
        (vec!["--sub", "ada", "--role", "user", "--ttl", "0s"], "24h"),
        (vec!["--sub", "ada", "--role", "user", "--ttl", "24"], "24h"),
        (vec!["--sub", "ada", "--role", "user", "--ttl", "99999d"], "century"),
        (vec!["--sub", " ", "--role", "user"], "empty"),
        (vec!["--sub", "a\nb", "--role", "user"], "control"),
        (vec!["--sub", &too_long, "--role", "user"], "200"),
    ] {
        let mut command = home.runlane(&[&["token"], &*arguments].concat());
        command.env("RUNLANE_JWT_SECRET", OWN_SECRET);
        let output = finish(command).await;
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:#?}");
        assert!(
            output.stderr.contains(part) && !output.stderr.contains("panicked"),
            "{arguments:?}: {output:#?}"
        );
    }
    let output = finish(home.runlane(&["token", "--sub", "ada", "--role", "user"])).await;
    assert!(output.refusal().contains("RUNLANE_JWT_SECRET: is not set"), "{output:#?}");
}
