//! GraphiQL in a real browser (`tests/browser`).

use std::path::Path;

use tokio::process::Command;

use super::support::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphiql_works_in_a_browser_and_asks_no_other_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/browser");
    assert!(
        folder.join("node_modules/playwright-core").is_dir(),
        "tests/browser/node_modules is missing: run `npm ci` in tests/browser"
    );
    assert!(
        root.join("console/dist/index.html").is_file(),
        "console/dist is missing: run `npm ci && npm run build` in console"
    );
    let server = Server::start().await;
    let mut command = Command::new("node");
    command.arg("console.mjs").arg(server.url("/graphql")).env("RUNLANE_TOKEN", server.token());
    if let Some(screenshots) = std::env::var_os("RUNLANE_SCREENSHOTS") {
        command.arg(screenshots);
    }
    let output = command
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await
        .expect("node drives the browser: install Node.js 20 or newer");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("0 of "), "the tests ran: {text}");
    println!("{text}");
}
