//! README.md and quickstart.md do what they say: every request is sent, in order, to `runlane dev`.
//!
//! A ```` ```graphql ```` block is sent with the ```` ```json variables ```` block that follows it, and compared with the
//! ```` ```json answer ```` block after that; a ```` ```bash ```` block is typed into one shell, and what it prints is
//! compared in the same way. `graphql admin` is sent as the admin; `graphql until` is repeated until it answers as
//! written. In an answer, `"$NAME"` takes the value where it stands first and must equal it from then on, `"…"` is
//! anything, and `…` within a text is any text.

mod session;

use async_graphql::parser::parse_query;
use session::Session;

use crate::support::pages::{blocks, page};

/// A reader who has typed the first block of the quickstart, and so has tokens.
async fn logged_in() -> Session {
    let mut session = Session::start().await;
    let login = blocks(&page("quickstart.md")).into_iter().find(|b| b.text.contains("TOKEN="));
    session.execute(&login.expect("a token is made")).await;
    session
}

#[tokio::test]
async fn every_request_of_the_quickstart_answers_as_it_says() {
    let mut session = Session::start().await;
    let steps = blocks(&page("quickstart.md"));
    assert!(steps.len() > 25, "the page was read: {} blocks", steps.len());
    for block in &steps {
        session.execute(block).await;
    }
    session.stop().await;
}

#[tokio::test]
async fn the_first_query_of_the_readme_is_answered() {
    let mut session = logged_in().await;
    let query = blocks(&page("README.md"))
        .into_iter()
        .find(|b| b.text.starts_with("curl"))
        .expect("there is a first query");
    let printed = session.shell(&query.text).await;
    let answer: serde_json::Value =
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
    assert!(answer.get("errors").is_none(), "{answer}");
    assert_eq!(answer["data"]["runs"]["nodes"], serde_json::json!([]));
    session.stop().await;
}

/// Sends a document that must not be executed, only judged: validation comes before the resolvers.
async fn is_valid(session: &Session, document: &str) {
    // A directive that does not exist is the one mistake that is expected, so that nothing is executed.
    let poisoned = document.replacen('{', "@thisDocumentIsOnlyJudged {", 1);
    let variables = serde_json::json!({ "definition": "any", "run": "any" });
    let answer = session.send(&session.admin_token(), &poisoned, variables).await;
    let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("it was executed: {answer}"));
    let others: Vec<_> =
        errors.iter().filter(|e| !e.to_string().contains("thisDocumentIsOnlyJudged")).collect();
    assert!(others.is_empty() && !errors.is_empty(), "{document}\n{others:#?}");
}

#[tokio::test]
async fn what_the_console_shows_at_first_is_valid() {
    let session = logged_in().await;
    let console = page("console/src/defaultQuery.ts");
    let text = console.split('`').filter(|part| part.contains("queueStatus {")).collect::<String>();
    let answer = session.send(&session.admin_token(), &text, serde_json::json!({})).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    // The examples behind comment signs, of which each begins with an operation's name.
    let examples: String =
        console.lines().filter_map(|l| l.strip_prefix("# ")).map(|l| format!("{l}\n")).collect();
    let starts: Vec<usize> = examples.match_indices("mutation ").map(|(at, _)| at).collect();
    assert_eq!(starts.len(), 3, "{examples}");
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(examples.len());
        let close = examples[start..end].rfind('}').expect("an operation ends with a brace");
        let operation = &examples[start..=start + close];
        parse_query(operation).unwrap_or_else(|e| panic!("{operation}: {e}"));
        is_valid(&session, operation).await;
    }
    session.stop().await;
}

/// docs/operations.md has commands beside a server.
#[tokio::test]
async fn what_operations_says_to_type_works() {
    let mut session = logged_in().await;
    let steps = blocks(&page("docs/operations.md"));
    assert!(steps.len() >= 2, "the page was read");
    for block in &steps {
        // A `grep` that finds nothing fails.
        session.execute(block).await;
    }
    session.stop().await;
}
