//! What a run would take.

use async_graphql::SimpleObject;
use rust_decimal::Decimal;

use super::scalars::Money;
use crate::domain::forecast::Spread;
use crate::service;

/// Decimals of a dollar that an estimate is worth.
const DECIMALS: u32 = 6;

/// What `startRun` with the same input is expected to take.
#[derive(SimpleObject)]
pub(super) struct RunEstimate {
    /// One for each scenario of the sample and each model.
    jobs: u64,
    /// What the models read, over all turns.
    input_tokens: u64,
    /// What they write.
    output_tokens: u64,
    /// US dollars; null where a price is unknown.
    cost_usd: Option<CostSpread>,
    /// Seconds from the start of its first probe to the end of its last; null where nothing is known.
    duration_seconds: Option<DurationSpread>,
    /// By model, in the order given.
    by_model: Vec<ModelEstimate>,
    /// What it is based on: read it before you rely on the numbers.
    basis: String,
}

/// A cost that is not certain.
#[derive(SimpleObject)]
pub(super) struct CostSpread {
    /// Half of such runs cost no more.
    p50: Money,
    /// Nine of ten such runs cost no more.
    p90: Money,
}

/// A duration that is not certain, in seconds.
#[derive(SimpleObject)]
pub(super) struct DurationSpread {
    /// Half of such runs take no longer.
    p50: f64,
    /// Nine of ten such runs take no longer.
    p90: f64,
}

/// What the probes of one model are expected to take, all together.
#[derive(SimpleObject)]
pub(super) struct ModelEstimate {
    /// `provider/name`
    model_id: String,
    /// How many.
    jobs: u64,
    /// What it reads.
    input_tokens: u64,
    /// What it writes.
    output_tokens: u64,
    /// US dollars, uncorrected; null where its price is unknown.
    cost_usd: Option<Money>,
    /// How many earlier probes of the model it is based on.
    sample_size: i64,
}

impl From<service::RunEstimate> for RunEstimate {
    fn from(estimate: service::RunEstimate) -> Self {
        let tokens = |of: fn(&service::ModelEstimate) -> u64| estimate.models.iter().map(of).sum();
        Self {
            jobs: estimate.jobs,
            input_tokens: tokens(|m| m.tokens.input),
            output_tokens: tokens(|m| m.tokens.output),
            cost_usd: estimate.cost_usd.and_then(dollars),
            duration_seconds: estimate.seconds.map(|Spread { p50, p90 }| DurationSpread { p50, p90 }),
            by_model: estimate.models.into_iter().map(ModelEstimate::from).collect(),
            basis: estimate.basis,
        }
    }
}

fn dollars(spread: Spread) -> Option<CostSpread> {
    let money = |usd: f64| Decimal::from_f64_retain(usd).map(|usd| Money(usd.round_dp(DECIMALS).normalize()));
    Some(CostSpread { p50: money(spread.p50)?, p90: money(spread.p90)? })
}

impl From<service::ModelEstimate> for ModelEstimate {
    fn from(model: service::ModelEstimate) -> Self {
        Self {
            model_id: model.model,
            jobs: model.jobs,
            input_tokens: model.tokens.input,
            output_tokens: model.tokens.output,
            cost_usd: model.cost_usd.map(Money),
            sample_size: model.sample_size,
        }
    }
}
