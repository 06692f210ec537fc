//! The GraphQL over HTTP audits of the specification's own project (`tests/graphql-http`).

use std::path::Path;

use tokio::process::Command;

use super::support::Server;

#[tokio::test]
async fn every_audit_of_graphql_over_http_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphql-http");
    assert!(
        folder.join("node_modules/graphql-http").is_dir(),
        "tests/graphql-http/node_modules is missing: run `npm ci` in tests/graphql-http"
    );
    let server = Server::start().await;
    let output = Command::new("node")
        .arg("audit.mjs")
        .arg(server.url("/graphql"))
        .env("AUDIT_TOKEN", server.token())
        .current_dir(folder)
        .output()
        .await
        .expect("node runs the audits: install Node.js 20 or newer");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("0 of "), "the audits ran: {text}");
}
