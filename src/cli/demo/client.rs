//! A GraphQL client of a few lines.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Speaks to one server as one person.
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr, token: String) -> Self {
        Self { http: reqwest::Client::new(), url: format!("http://{address}/graphql"), token }
    }

    /// The answer's data.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers with an error.
    pub async fn ask(&self, query: &str, variables: Value) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .json(&json!({ "query": query, "variables": variables }));
        let mut answer: Value = request.send().await.context("cannot reach the server")?.json().await?;
        if let Some(errors) = answer["errors"].as_array() {
            let messages: Vec<&str> = errors.iter().filter_map(|e| e["message"].as_str()).collect();
            bail!("the server answered: {}", messages.join("; "));
        }
        Ok(answer["data"].take())
    }
}
