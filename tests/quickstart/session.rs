//! A reader with a shell, beside `runlane dev` in an empty directory.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cli::process::{Home, Running};
use crate::support::app::PATIENCE;
use crate::support::pages::{Answer, Block, Names};
use crate::support::shell::Shell;

pub struct Session {
    home: Home,
    server: Running,
    address: String,
    shell: Shell,
    names: Names,
    http: reqwest::Client,
}

impl Session {
    /// The directory looks like the project's after `make dev`.
    pub async fn start() -> Self {
        let home = Home::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(home.path().join("target/debug")).unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, home.path().join(name)).unwrap();
        link(Path::new(env!("CARGO_BIN_EXE_runlane")), "target/debug/runlane");
        link(&root.join("python"), "python");
        let mut command = home.runlane(&["dev"]);
        command.env_remove("RUNLANE_DATA_DIR").env_remove("RUNLANE_PYTHON");
        let server = Running::start(&mut command);
        let link = server.prints("/graphql#token=").await;
        let address =
            link.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        let shell = Shell::new(home.path(), Vec::new(), address.clone());
        Self { home, server, address, shell, names: Names::default(), http: reqwest::Client::new() }
    }

    pub async fn stop(self) {
        self.server.signal(Signal::SIGINT);
        self.server.end().await.ok();
        self.home.is_quiet();
    }

    /// Does what the block says, and compares.
    pub async fn execute(&mut self, block: &Block) {
        if block.kind == "bash" {
            let printed = self.shell(&block.text).await;
            let compared = match &block.answer {
                None => Ok(()),
                Some(Answer::Text(expected)) => self.names.compare_text(expected, &printed),
                Some(Answer::Json(expected)) => serde_json::from_str(&printed)
                    .map_err(|e| e.to_string())
                    .and_then(|answer| self.names.compare(expected, &answer)),
            };
            compared.unwrap_or_else(|e| panic!("line {}: {e}\n{printed}", block.line));
            return;
        }
        let token = self.shell.variable(if block.kind == "graphql admin" { "ADMIN" } else { "TOKEN" });
        let variables = self.filled(block.variables.as_ref().unwrap_or(&json!({})), block.line);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.send(&token, &block.text, variables.clone()).await;
            let compared = match &block.answer {
                Some(Answer::Json(expected)) => self.names.compare(expected, &answer),
                Some(Answer::Text(_)) => panic!("line {}: GraphQL answers JSON", block.line),
                None if answer.get("errors").is_none() => Ok(()),
                None => Err("no answer is shown, so no error is expected".to_owned()),
            };
            match compared {
                Ok(()) => return,
                Err(_) if block.kind == "graphql until" && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("quickstart.md, line {}: {error}\n{answer:#}", block.line),
            }
        }
    }

    /// Types `text` into the shell, which remembers its exported variables; gives what it printed.
    pub async fn shell(&mut self, text: &str) -> String {
        let typed = self.shell.types(text).await;
        assert!(typed.ended_well, "{text}\n{typed:#?}");
        typed.stdout
    }

    pub fn admin_token(&self) -> String {
        self.shell.variable("ADMIN")
    }

    pub async fn send(&self, token: &str, query: &str, variables: Value) -> Value {
        let request = self.http.post(format!("http://{}/graphql", self.address)).bearer_auth(token);
        let request = request.json(&json!({ "query": query, "variables": variables }));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// `value` with every `$NAME` replaced.
    fn filled(&self, value: &Value, line: usize) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => {
                    self.names.get(name).cloned().unwrap_or_else(|| panic!("line {line}: ${name}?"))
                }
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.filled(item, line)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(k, v)| (k.clone(), self.filled(v, line))).collect())
            }
            other => other.clone(),
        }
    }
}
