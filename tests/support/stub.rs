//! The stub of a model provider, as a process: `python/tests/stub_server.py`, which documents its keys and its statistics.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::app::{PATIENCE, python};

/// A stub server; it ends with this value.
pub struct Stub {
    process: Child,
    /// Where it listens.
    pub port: u16,
    http: reqwest::Client,
}

/// What the stub has seen since its start or the last reset.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StubStats {
    /// Calls within the ceiling, whatever they were answered.
    pub accepted: u64,
    /// Calls beyond the ceiling.
    pub rejected: u64,
    /// Accepted calls that were answered with an error, as their model's name asked.
    pub failed: u64,
    /// Clients that left before their answer.
    pub gone: u64,
    /// Calls that wait for their answer now.
    pub in_flight: u64,
    /// The most that did at once.
    pub in_flight_max: u64,
    /// The most that were accepted within one window of the ceiling.
    pub window_max: u64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Accepted calls by the second of their arrival (Unix time).
    pub per_second: BTreeMap<String, u64>,
    /// Calls by model.
    pub models: BTreeMap<String, u64>,
    /// Calls by the key that they came with.
    pub keys: BTreeMap<String, u64>,
}

impl Stub {
    /// Starts one without a ceiling.
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tests/stub_server.py");
        let mut process = Command::new(python())
            .args([script.as_os_str(), "--port".as_ref(), "0".as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the stub starts");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut port).expect("the stub says its port");
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { process, port: port.trim().parse().expect("a port"), http }
    }

    /// The base URL in OpenAI's wire format, as `openai` and `openai-compatible` take it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The base URL without a path, as `anthropic` and `google` take it; `mistral` takes it with `/mistral`.
    pub fn root(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has seen.
    pub async fn stats(&self) -> StubStats {
        self.until_in_flight(0).await
    }

    /// Waits until so many calls wait for their answer at once; returns what it has seen by then.
    pub async fn until_in_flight(&self, calls: u64) -> StubStats {
        let url = format!("{}/admin/stats?inFlight={calls}", self.root());
        let response = self.http.get(url).send().await;
        response.expect("the stub answers in time").json().await.expect("statistics")
    }

    /// Lets the calls of models with `gate=1` go on, those to come included.
    pub async fn open(&self) {
        self.admin("open", json!({})).await;
    }

    /// Sets the ceiling: calls in each window, and at once. Calls beyond are answered 429 with Retry-After.
    pub async fn ceiling(&self, per_window: Option<u32>, in_flight: Option<u32>, window: Duration) {
        let ceiling =
            json!({ "perMinute": per_window, "inFlight": in_flight, "windowS": window.as_secs_f64() });
        self.admin("ceiling", ceiling).await;
    }

    /// Forgets what it has seen.
    pub async fn reset(&self) {
        self.admin("reset", json!({})).await;
    }

    async fn admin(&self, act: &str, body: Value) {
        let request = self.http.post(format!("{}/admin/{act}", self.root())).json(&body);
        let status = request.send().await.expect("the stub answers").status();
        assert!(status.is_success(), "{act}: {status}");
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // It ends with its stdin too; a test that fails should leave nothing behind either way.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
