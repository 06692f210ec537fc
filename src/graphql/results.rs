//! Transcripts.

use std::sync::Arc;

use async_graphql::{ID, Json, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::scalars::Money;
use crate::domain::view;

/// What a completed probe returned.
#[derive(Clone)]
pub(super) struct Transcript(Arc<view::Transcript>);

impl From<view::Transcript> for Transcript {
    fn from(transcript: view::Transcript) -> Self {
        Self(Arc::new(transcript))
    }
}

/// What a completed probe returned.
#[Object]
impl Transcript {
    /// The same as that of its job.
    async fn id(&self) -> ID {
        self.0.job_id.into()
    }

    /// The run.
    async fn run_id(&self) -> ID {
        self.0.run_id.into()
    }

    /// What was asked.
    async fn scenario_id(&self) -> ID {
        self.0.scenario_id.into()
    }

    /// Who was asked.
    async fn model_id(&self) -> &str {
        &self.0.model
    }

    /// What the provider says who answered.
    async fn model_version(&self) -> Option<&str> {
        self.0.model_version.as_deref()
    }

    /// Prompts and answers in order: a list of objects with `n`, `label`, `prompt`, `response`, `finishReason`, `usage`
    /// and `latencyMs`.
    async fn turns(&self) -> Json<Value> {
        Json(self.0.turns.clone())
    }

    /// The first integer within the definition's scoring range in the last answer; null without one.
    async fn score(&self) -> Option<i32> {
        self.0.score
    }

    /// What it cost, in US dollars; null when no price is known.
    async fn cost_usd(&self) -> Option<Money> {
        self.0.cost_usd.map(Money)
    }

    /// Tokens: `input`, `output`, `reasoning`, `cacheRead`, `cacheWrite`.
    async fn usage(&self) -> Json<Value> {
        Json(self.0.usage.clone())
    }

    /// How long the model took over all turns, in milliseconds.
    async fn latency_ms(&self) -> i32 {
        self.0.latency_ms
    }

    /// When it was stored.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
}
