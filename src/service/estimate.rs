//! What a run would take, before anything of it is started.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::money::JobCost;
use super::start::Prepared;
use super::{Result, Service};
use crate::domain::estimate::{PromptSizes, Tokens};
use crate::domain::forecast::{self, Load, ModelStatistic, Spread, Work};
use crate::domain::start_run::StartRunInput;
use crate::domain::{ModelId, Requester};
use crate::store::{Capacity, Conditions, PastRun, SharedLimit};

/// So many finished runs tell how far forecasts are off.
const PAST_RUNS: i64 = 200;

/// What a run is expected to take.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEstimate {
    /// How many jobs.
    pub jobs: u64,
    /// By model, in the order given.
    pub models: Vec<ModelEstimate>,
    /// US dollars; `None` where a price is unknown.
    pub cost_usd: Option<Spread>,
    /// From its first claim to its end; `None` where nothing is known.
    pub seconds: Option<Spread>,
    /// What all of it is based on, in words.
    pub basis: String,
}

/// What the jobs of one model are expected to take, all together.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEstimate {
    /// `provider/name`
    pub model: String,
    /// How many jobs.
    pub jobs: u64,
    /// What they read and write.
    pub tokens: Tokens,
    /// US dollars; `None` where its price is unknown.
    pub cost_usd: Option<Decimal>,
    /// Earlier probes of the model that it is based on.
    pub sample_size: i64,
}

/// What is foretold of a run, uncorrected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Forecast {
    /// Milliseconds from its first claim to its end.
    pub(super) ms: Option<f64>,
    /// US dollars.
    pub(super) usd: Option<Decimal>,
    models: Vec<ModelEstimate>,
    capacity: Capacity,
    limits: Vec<SharedLimit>,
    /// The place in `limits` of the one that decides how long it takes.
    slowest: Option<usize>,
}

impl Service {
    /// What `startRun` with this input would take. Nothing is started.
    ///
    /// # Errors
    /// VALIDATION_ERROR, NOT_FOUND and QUEUE_ERROR as of `startRun`.
    pub async fn estimate_run(&self, requester: &Requester, input: StartRunInput) -> Result<RunEstimate> {
        let mut met = self.conditions(requester, &input).await?;
        let prepared = self.prepare(input, met.definition.take()).await?;
        let costs = self.job_costs(&prepared).await?;
        let limits = self.limits_on(&prepared, &met).await?;
        let sizes = match known_sizes(&costs) {
            Some(sizes) => sizes,
            None => self.prompt_sizes(&prepared).await?,
        };
        let forecast = self.forecast(&prepared, &costs, sizes, &met, limits);
        let past = self.store.past_runs(PAST_RUNS).await.map_err(|e| self.failed(e))?;
        let ratios = |of: fn(&PastRun) -> Option<f64>| past.iter().filter_map(of).collect::<Vec<f64>>();
        let (durations, spent) = (ratios(|p| p.duration_ratio), ratios(|p| p.cost_ratio));
        let basis = basis(&forecast, &costs, durations.len(), spent.len());
        let corrected = |value: f64, ratios: Vec<f64>| {
            let off = forecast::spread(ratios);
            Spread { p50: value * off.p50, p90: value * off.p90 }
        };
        Ok(RunEstimate {
            jobs: prepared.jobs,
            cost_usd: forecast.usd.and_then(|usd| usd.to_f64()).map(|usd| corrected(usd, spent)),
            seconds: forecast.ms.map(|ms| corrected(ms / 1_000.0, durations)),
            models: forecast.models,
            basis,
        })
    }

    /// The limits that bear on a run.
    pub(super) async fn limits_on(&self, prepared: &Prepared, met: &Conditions) -> Result<Vec<SharedLimit>> {
        if !met.has_rate_limits {
            return Ok(Vec::new());
        }
        let models: Vec<String> = prepared.run.models.iter().map(ToString::to_string).collect();
        self.store.limits_on(&models).await.map_err(|e| self.failed(e))
    }

    /// What is foretold of a run before it is corrected by how far such forecasts were off.
    pub(super) fn forecast(
        &self,
        prepared: &Prepared,
        costs: &[Option<JobCost>],
        sizes: PromptSizes,
        met: &Conditions,
        limits: Vec<SharedLimit>,
    ) -> Forecast {
        let run = &prepared.run;
        let names: Vec<String> = run.models.iter().map(ToString::to_string).collect();
        let known: Vec<Option<&ModelStatistic>> =
            names.iter().map(|name| met.statistics.iter().find(|s| s.model == *name)).collect();
        let models = names
            .into_iter()
            .zip(&known)
            .zip(costs)
            .map(|((model, statistic), cost)| {
                self.model_estimate(prepared, sizes, model, *statistic, cost.as_ref())
            })
            .collect::<Vec<_>>();
        let work: Option<Vec<Work<'_>>> =
            known.iter().map(|s| s.map(|statistic| Work { jobs: prepared.sampled, statistic })).collect();
        let usd: Option<Vec<Decimal>> = models.iter().map(|m| m.cost_usd).collect();
        let in_slots =
            work.and_then(|work| forecast::duration_ms(&work, slots(met.capacity, run.max_concurrency)));
        let calls_each = self.conversation(prepared).turns();
        let limited = in_slots.and_then(|_| slowest(&run.models, &models, &known, calls_each, &limits));
        let limited = limited.filter(|&(_, ms)| in_slots.is_some_and(|in_slots| ms > in_slots));
        Forecast {
            ms: limited.map_or(in_slots, |(_, ms)| Some(ms)),
            usd: usd.map(|usd| usd.into_iter().sum()),
            models,
            capacity: met.capacity,
            slowest: limited.map(|(i, _)| i),
            limits,
        }
    }

    fn model_estimate(
        &self,
        prepared: &Prepared,
        sizes: PromptSizes,
        model: String,
        statistic: Option<&ModelStatistic>,
        cost: Option<&JobCost>,
    ) -> ModelEstimate {
        let conversation = self.conversation(prepared);
        let mut each = conversation.expected(sizes.total.checked_div(sizes.count).unwrap_or(0));
        if let Some(output) = statistic.and_then(ModelStatistic::usual_output) {
            each.output = output;
        }
        let tokens = Tokens { input: each.input * prepared.sampled, output: each.output * prepared.sampled };
        ModelEstimate {
            model,
            jobs: prepared.sampled,
            tokens,
            cost_usd: cost.map(|cost| tokens.cost(&cost.prices)),
            sample_size: statistic.map_or(0, |s| s.jobs),
        }
    }
}

/// The lengths of the prompts, if they were read for the costs.
pub(super) fn known_sizes(costs: &[Option<JobCost>]) -> Option<PromptSizes> {
    costs.iter().flatten().next().map(|cost| cost.sizes)
}

/// How many probes of a run run at once: its even share of the slots, within its own limit.
fn slots(capacity: Capacity, max_concurrency: Option<u32>) -> f64 {
    let share = capacity.slots as f64 / (capacity.other_runs + 1) as f64;
    let share = if capacity.slots > 0 { share.max(1.0) } else { 0.0 };
    max_concurrency.map_or(share, |max| share.min(f64::from(max)))
}

/// The limit that takes longest to let a run through: its place, and the milliseconds to the end of the last probe.
fn slowest(
    ids: &[ModelId],
    models: &[ModelEstimate],
    known: &[Option<&ModelStatistic>],
    calls_each: u64,
    limits: &[SharedLimit],
) -> Option<(usize, f64)> {
    let through = limits.iter().map(|limit| {
        let (mut load, mut last_ms) = (Load::default(), 0.0_f64);
        for ((id, model), statistic) in ids.iter().zip(models).zip(known) {
            let mean_ms = statistic.map_or(0.0, |s| s.mean_ms);
            if limit.name == id.as_str() || limit.name == id.provider() {
                load.calls += (model.jobs * calls_each) as f64;
                load.tokens += (model.tokens.input + model.tokens.output) as f64;
                load.work_ms += model.jobs as f64 * mean_ms;
                last_ms = last_ms.max(mean_ms);
            }
        }
        forecast::limited_ms(&limit.ceilings, load, limit.other_runs) + last_ms
    });
    through.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
}

/// What an estimate is based on, in words.
fn basis(forecast: &Forecast, costs: &[Option<JobCost>], durations: usize, spent: usize) -> String {
    let names = |of: &dyn Fn(&ModelEstimate) -> bool| {
        let found: Vec<&str> = forecast.models.iter().filter(|m| of(m)).map(|m| m.model.as_str()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    let mut parts = vec!["Tokens: a quarter of the bytes of the prompts, and answers as long as earlier ones were or as expected.".to_owned()];
    match (names(&|m| m.cost_usd.is_none()), costs.iter().flatten().map(|c| c.as_of).min()) {
        (Some(unknown), _) => {
            parts.push(format!("Cost: unknown, because there is no price for {unknown}."));
        }
        (None, Some(day)) => parts.push(format!("Cost: prices as of {day}; {}.", off_by(spent))),
        (None, None) => {}
    }
    let Capacity { slots, other_runs } = forecast.capacity;
    if let Some(unknown) = names(&|m| m.sample_size == 0) {
        parts.push(format!(
            "Duration: unknown, because no probe of {unknown} has finished yet; start a small sample first."
        ));
    } else if slots == 0 {
        parts.push("Duration: unknown, because no node runs probes now.".to_owned());
    } else {
        let probes: i64 = forecast.models.iter().map(|m| m.sample_size).sum();
        parts.push(format!(
            "Duration: the latest {probes} probes of these models; {slots} slots, shared with {other_runs} other runs; {}.",
            off_by(durations)
        ));
    }
    if let Some(limit) = forecast.slowest.map(|i| &forecast.limits[i]) {
        let allowed =
            limit.ceilings.named().into_iter().filter_map(|(name, n)| n.map(|n| format!("{name} {n}")));
        parts.push(format!(
            "The limit on {} decides how long it takes: {}, shared with {} other runs.",
            limit.name,
            allowed.collect::<Vec<_>>().join(", "),
            limit.other_runs
        ));
    }
    for (limit, code) in forecast.limits.iter().filter_map(|l| l.hold.as_ref().map(|code| (l, code))) {
        parts.push(format!("{} is held ({code}): nothing of it starts before releaseLimit.", limit.name));
    }
    parts.join(" ")
}

/// Where the spread comes from.
fn off_by(runs: usize) -> String {
    if runs < forecast::PAST_RUNS_MIN {
        format!("the spread is assumed, because only {runs} finished runs tell how far forecasts are off")
    } else {
        format!("the spread is that of the forecasts of {runs} finished runs")
    }
}
