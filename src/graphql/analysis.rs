//! Analyses: the whole result as JSON, and typed what people read most.

use async_graphql::{ComplexObject, ID, Json, SimpleObject};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::enums::{AnalysisKind, TaskStatus};
use super::job::JobError;
use super::scalars::Money;
use crate::domain::view;
use crate::service;

/// What was computed over a run's transcripts. The typed fields repeat parts of `result`; each is null before the first
/// result, in an analysis of the other kind, and where a worker of your own returns something else there. A number that
/// is null could not be computed; `warnings` say why.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct Analysis {
    /// The same as that of the job that computes it.
    id: ID,
    /// Which analysis.
    kind: AnalysisKind,
    /// Where the job that computes it stands.
    status: TaskStatus,
    /// The latest result, also while a newer one is computed; null before the first.
    result: Option<Json<Value>>,
    /// How much of the run the result rests on: `expected`, `used`, `failed`.
    coverage: Option<Json<Value>>,
    /// What to bear in mind about the result.
    warnings: Vec<String>,
    /// What went wrong last.
    error: Option<JobError>,
    /// When the result was computed, or found to be what would be computed; null before the first.
    computed_at: Option<DateTime<Utc>>,
    /// When the result was really computed, if nothing that it depends on had changed at `computedAt`: neither the records
    /// nor the options nor the worker's code. Null if it was computed then.
    cached_from: Option<DateTime<Utc>>,
}

/// What was computed over a run's transcripts.
#[ComplexObject]
impl Analysis {
    /// BASIC: each model's scores, cost and latency, by name.
    async fn models(&self) -> Option<Vec<ModelSummary>> {
        self.part("models")
    }

    /// BASIC: how often each of two models scored higher, for every two.
    async fn win_rates(&self) -> Option<Vec<WinRate>> {
        self.part("winRates")
    }

    /// DEEP: the difference of every two models, by paired bootstrap.
    async fn comparisons(&self) -> Option<Vec<ModelComparison>> {
        self.part("comparisons")
    }

    /// DEEP: Spearman's correlation of every two models.
    async fn correlations(&self) -> Option<Vec<ModelCorrelation>> {
        self.part("correlations")
    }

    /// DEEP: how far models give the same ratings.
    async fn agreement(&self) -> Option<Agreement> {
        self.part("agreement")
    }

    /// DEEP: the effect of each dimension on the scenario's score, by name.
    async fn dimensions(&self) -> Option<Vec<DimensionEffect>> {
        self.part("dimensions")
    }
}

impl Analysis {
    fn part<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let part = self.result.as_ref()?.0.get(name)?;
        T::deserialize(part)
            .inspect_err(
                |error| tracing::debug!(job_id = ?self.id, name, %error, "a part of an analysis is another worker's"),
            )
            .ok()
    }
}

impl TryFrom<view::Analysis> for Analysis {
    type Error = async_graphql::Error;
    fn try_from(analysis: view::Analysis) -> Result<Self, Self::Error> {
        let kind = AnalysisKind::of(analysis.kind).ok_or_else(|| service::Error::Internal {
            internal: format!("job {} is listed as an analysis and is a {}", analysis.job_id, analysis.kind),
        })?;
        Ok(Self {
            id: analysis.job_id.into(),
            kind,
            status: analysis.state.status().into(),
            result: analysis.result.map(Json),
            coverage: analysis.coverage.map(Json),
            warnings: analysis.warnings,
            error: analysis.error.map(JobError::from),
            computed_at: analysis.computed_at,
            cached_from: analysis.cached_from,
        })
    }
}

/// A confidence interval, at 95 % unless `result.methods.alpha` says otherwise.
#[derive(SimpleObject, Deserialize)]
struct Interval {
    /// Its low end.
    low: f64,
    /// Its high end.
    high: f64,
}

/// One model in a run.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelSummary {
    /// The model.
    model_id: String,
    /// Scenarios that it scored.
    n: i32,
    /// Mean score over scenarios; null without one.
    mean: Option<f64>,
    /// Standard deviation over scenarios, with n − 1; null below two.
    sd: Option<f64>,
    /// Student's t interval of the mean; null below two scenarios or when all scores are the same.
    interval: Option<Interval>,
    /// How often it gave each rating, ascending.
    distribution: Vec<RatingCount>,
    /// Latency of its completed probes.
    latency_ms: LatencySummary,
    /// What its probes cost, in US dollars, as far as that is known; null when no cost is.
    cost_usd: Option<Money>,
}

/// How often a rating was given.
#[derive(SimpleObject, Deserialize)]
struct RatingCount {
    /// The rating.
    score: f64,
    /// How often.
    count: i32,
}

/// Latency, in milliseconds.
#[derive(SimpleObject, Deserialize)]
struct LatencySummary {
    /// How many were measured.
    n: i32,
    /// The median; null when none was measured.
    p50: Option<f64>,
    /// 95 % are at most this long; null when none was measured.
    p95: Option<f64>,
}

/// How often each of two models scored higher on the scenarios that both scored.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WinRate {
    /// The one model.
    model_a: String,
    /// The other.
    model_b: String,
    /// Scenarios that both scored.
    shared: i32,
    /// Where A scored higher.
    wins_a: i32,
    /// Where B scored higher.
    wins_b: i32,
    /// Where they scored the same; not in the rate.
    ties: i32,
    /// A's share of the wins; null without a win.
    win_rate_a: Option<f64>,
    /// Wilson's interval of it.
    interval: Option<Interval>,
}

/// The difference of two models on the scenarios that both scored.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelComparison {
    /// The one model.
    model_a: String,
    /// The other.
    model_b: String,
    /// Scenarios that both scored.
    n: i32,
    /// Mean of A − B.
    difference: Option<f64>,
    /// Its interval, by resampling scenarios.
    interval: Option<Interval>,
    /// The p-value, not adjusted.
    p: Option<f64>,
    /// Adjusted by Holm over all pairs.
    p_adjusted: Option<f64>,
    /// Whether the adjusted one is below alpha.
    significant: Option<bool>,
}

/// Whether two models order the scenarios alike.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelCorrelation {
    /// The one model.
    model_a: String,
    /// The other.
    model_b: String,
    /// Scenarios that both scored.
    n: i32,
    /// Spearman's ρ.
    rho: Option<f64>,
    /// The p-value, not adjusted.
    p: Option<f64>,
    /// Adjusted by Holm over all pairs.
    p_adjusted: Option<f64>,
    /// Whether the adjusted one is below alpha.
    significant: Option<bool>,
}

/// How far models give the same ratings: 1 is always, 0 is as chance would have it.
#[derive(SimpleObject, Deserialize)]
struct Agreement {
    /// Every two models.
    pairs: Vec<PairAgreement>,
    /// Fleiss' κ of all models: ratings as mere names, complete scenarios only.
    fleiss: FleissKappa,
    /// Krippendorff's α of all models: ratings in order, gaps allowed.
    krippendorff: KrippendorffAlpha,
}

/// Cohen's κ of two models with quadratic weights.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PairAgreement {
    /// The one model.
    model_a: String,
    /// The other.
    model_b: String,
    /// Scenarios that both scored.
    n: i32,
    /// κ.
    kappa: Option<f64>,
    /// Its asymptotic interval.
    interval: Option<Interval>,
}

/// Fleiss' κ.
#[derive(SimpleObject, Deserialize)]
struct FleissKappa {
    /// Scenarios that every model scored.
    n: i32,
    /// κ.
    kappa: Option<f64>,
}

/// Krippendorff's α.
#[derive(SimpleObject, Deserialize)]
struct KrippendorffAlpha {
    /// Scenarios that it rests on.
    n: i32,
    /// α.
    alpha: Option<f64>,
}

/// The effect of one dimension on the scenario's score.
#[derive(SimpleObject, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DimensionEffect {
    /// The dimension's name.
    dimension: String,
    /// Scored scenarios that have a level of it.
    n: i32,
    /// Kruskal and Wallis' H.
    h: Option<f64>,
    /// The p-value, not adjusted.
    p: Option<f64>,
    /// ε² = H/(n − 1).
    epsilon_squared: Option<f64>,
    /// Adjusted by Benjamini and Hochberg over the dimensions.
    p_adjusted: Option<f64>,
    /// Whether the adjusted one is below alpha.
    significant: Option<bool>,
    /// Its levels by name.
    levels: Vec<LevelSummary>,
}

/// One level of a dimension.
#[derive(SimpleObject, Deserialize)]
struct LevelSummary {
    /// The level.
    level: String,
    /// Its scored scenarios.
    n: i32,
    /// Mean of their scores.
    mean: Option<f64>,
    /// Their standard deviation, with n − 1.
    sd: Option<f64>,
}
