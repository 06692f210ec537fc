//! A reader with a shell, beside `runlane dev` in an empty directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use super::pages::Block;
use crate::cli::process::{Home, Running};
use crate::support::app::PATIENCE;

/// Where the pages say that the server is.
const WRITTEN_ADDRESS: &str = "127.0.0.1:8080";

pub struct Session {
    home: Home,
    server: Running,
    address: String,
    /// What `$NAME` stands for.
    names: BTreeMap<String, Value>,
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
        Self { home, server, address, names: BTreeMap::new(), http: reqwest::Client::new() }
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
            if let Some(expected) = &block.answer {
                let answer = serde_json::from_str(&printed)
                    .unwrap_or_else(|e| panic!("line {}: {e}: {printed}", block.line));
                self.compare(expected, &answer)
                    .unwrap_or_else(|e| panic!("line {}: {e}\n{answer:#}", block.line));
            }
            return;
        }
        let token = self.variable(if block.kind == "graphql admin" { "ADMIN" } else { "TOKEN" });
        let variables = self.filled(block.variables.as_ref().unwrap_or(&json!({})), block.line);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.send(&token, &block.text, variables.clone()).await;
            let compared = match &block.answer {
                Some(expected) => self.compare(expected, &answer),
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
        let text = text.replace(WRITTEN_ADDRESS, &self.address);
        let script = format!(
            "set -euo pipefail; if [ -e .exports ]; then . ./.exports; fi\n{text}\nexport -p > .exports"
        );
        let typed =
            Command::new("bash").arg("-c").arg(script).current_dir(self.home.path()).output().await.unwrap();
        let printed = String::from_utf8(typed.stdout).unwrap();
        assert!(typed.status.success(), "{text}\n{printed}{}", String::from_utf8_lossy(&typed.stderr));
        printed
    }

    /// A variable that the shell has exported.
    fn variable(&self, name: &str) -> String {
        let exports = std::fs::read_to_string(self.home.path().join(".exports")).unwrap_or_default();
        let start = format!("declare -x {name}=\"");
        let found = exports.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'));
        found.unwrap_or_else(|| panic!("{name} is not exported yet")).to_owned()
    }

    pub fn admin_token(&self) -> String {
        self.variable("ADMIN")
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

    fn compare(&mut self, written: &Value, got: &Value) -> Result<(), String> {
        let mut names = self.names.clone();
        matches(written, got, &mut names, "")?;
        self.names = names;
        Ok(())
    }
}

/// Whether `got` is as `written`, at `path`; takes the names that are new.
fn matches(
    written: &Value,
    got: &Value,
    names: &mut BTreeMap<String, Value>,
    path: &str,
) -> Result<(), String> {
    let differs = || Err(format!("{path} should be {written}, is {got}"));
    match (written, got) {
        (Value::String(text), _) if text == "…" => Ok(()),
        (Value::String(text), _) if text.starts_with('$') => match names.get(&text[1..]) {
            None => {
                names.insert(text[1..].to_owned(), got.clone());
                Ok(())
            }
            Some(known) if known == got => Ok(()),
            Some(known) => Err(format!("{path} should be {known} ({text}), is {got}")),
        },
        (Value::String(text), Value::String(got)) if text.contains('…') => {
            let parts: Vec<&str> = text.split('…').collect();
            let (first, last) = (parts[0], parts[parts.len() - 1]);
            let fits = got.len() >= first.len() + last.len() && got.starts_with(first) && got.ends_with(last);
            if fits { Ok(()) } else { differs() }
        }
        (Value::Object(written), Value::Object(got)) => {
            for (key, value) in written {
                let Some(got) = got.get(key) else { return Err(format!("{path}.{key} is missing")) };
                matches(value, got, names, &format!("{path}.{key}"))?;
            }
            // Errors also say where in the document they are.
            let extra = got.keys().find(|k| !written.contains_key(*k) && !path.starts_with(".errors"));
            match extra {
                Some(key) if !(path.is_empty() && key == "data" && got[key].is_null()) => {
                    Err(format!("{path}.{key} is not in the page"))
                }
                _ => Ok(()),
            }
        }
        (Value::Array(written), Value::Array(got)) if written.len() == got.len() => written
            .iter()
            .zip(got)
            .enumerate()
            .try_for_each(|(i, (w, g))| matches(w, g, names, &format!("{path}[{i}]"))),
        _ if written == got => Ok(()),
        _ => differs(),
    }
}

#[test]
fn answers_are_compared_by_the_rules() {
    let mut names = BTreeMap::new();
    let mut fits = |written: Value, got: Value| matches(&written, &got, &mut names, "").is_ok();
    assert!(fits(json!({"a": "$X", "b": "…"}), json!({"a": 1, "b": [2]})));
    assert!(fits(json!("$X"), json!(1)) && !fits(json!("$X"), json!(2)));
    assert!(
        fits(json!("since …; go"), json!("since noon; go"))
            && !fits(json!("since …; go"), json!("since noon"))
    );
    assert!(!fits(json!({"a": 1}), json!({"a": 1, "b": 2})) && !fits(json!({"a": 1}), json!({})));
    assert!(!fits(json!([1]), json!([1, 2])) && !fits(json!(1), json!("1")));
    assert!(fits(
        json!({"errors": [{"message": "…"}]}),
        json!({"data": null, "errors": [{"message": "m", "path": []}]})
    ));
}
