//! How long a run takes and what it costs, foretold from what ran before. docs/money.md has the method.

use serde::Deserialize;

use super::rate_limit::Ceilings;

/// Steps between the quantiles of a [`ModelStatistic`].
const STEPS: usize = 20;
/// Below so many finished runs, how far forecasts were off before says too little.
pub const PAST_RUNS_MIN: usize = 10;
/// What the spread is taken for then: the 90th percentile, as a multiple of the forecast.
const SPREAD_ASSUMED: f64 = 1.5;
/// Below so many probes, the lengths of a model's answers say too little.
const ANSWERS_MIN: i64 = 20;

/// What is known of a model from its latest probes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelStatistic {
    /// `provider/name`
    pub model: String,
    /// How many probes.
    pub jobs: i64,
    /// Milliseconds that a probe held a slot, its retries included: the mean …
    pub mean_ms: f64,
    /// … and 21 quantiles, from the least to the greatest.
    pub quantiles_ms: Vec<f64>,
    /// Tokens that a probe wrote, on average.
    pub output_tokens: Option<f64>,
}

impl ModelStatistic {
    /// Tokens that a probe writes, where enough of them are known.
    #[must_use]
    pub fn usual_output(&self) -> Option<u64> {
        self.output_tokens.filter(|_| self.jobs >= ANSWERS_MIN).map(|n| n.ceil() as u64)
    }

    /// The time within which a part `p` of probes ends, in milliseconds.
    fn quantile(&self, p: f64) -> f64 {
        let at = p.clamp(0.0, 1.0) * STEPS as f64;
        let below = at.floor() as usize;
        let value = |i: usize| self.quantiles_ms.get(i.min(STEPS)).copied().unwrap_or(self.mean_ms);
        value(below) + (value(below + 1) - value(below)) * (at - below as f64)
    }
}

/// Probes of one model that are still to run.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// How many.
    pub jobs: u64,
    /// What is known of their model.
    pub statistic: &'a ModelStatistic,
}

/// How long `work` takes in `slots` at once, in milliseconds: all of it but the last of each slot is shared evenly, and of
/// the last ones the longest counts. `None` without slots.
#[must_use]
pub fn duration_ms(work: &[Work<'_>], slots: f64) -> Option<f64> {
    let jobs: u64 = work.iter().map(|w| w.jobs).sum();
    if jobs == 0 {
        return Some(0.0);
    }
    if slots < 1.0 {
        return None;
    }
    let last = slots.min(jobs as f64);
    let total: f64 = work.iter().map(|w| w.jobs as f64 * w.statistic.mean_ms).sum();
    // The expected greatest of n is about the quantile n ÷ (n + 1).
    let of_last = |w: &Work<'_>| (last * w.jobs as f64 / jobs as f64).max(1.0);
    let longest = work
        .iter()
        .filter(|w| w.jobs > 0)
        .map(|w| w.statistic.quantile(of_last(w) / (of_last(w) + 1.0)).max(w.statistic.mean_ms))
        .fold(0.0, f64::max);
    Some((total - last * total / jobs as f64).max(0.0) / slots + longest)
}

/// What probes that share a limit ask of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Calls of the provider.
    pub calls: f64,
    /// Tokens, in and out.
    pub tokens: f64,
    /// Milliseconds that one after the other would take.
    pub work_ms: f64,
}

/// How long a limit takes to let `load` through, in milliseconds, when as many other runs want their even share of it.
#[must_use]
pub fn limited_ms(ceilings: &Ceilings, load: Load, other_runs: i64) -> f64 {
    const MINUTE_MS: f64 = 60_000.0;
    let at = |load: f64, ceiling: Option<i32>| ceiling.map_or(0.0, |n| load / f64::from(n.max(1)));
    let alone = at(load.work_ms, ceilings.in_flight)
        .max(at(load.calls * MINUTE_MS, ceilings.requests_per_minute))
        .max(at(load.tokens * MINUTE_MS, ceilings.tokens_per_minute));
    alone * (other_runs + 1) as f64
}

/// A forecast with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of such runs stay within it.
    pub p50: f64,
    /// Nine of ten do.
    pub p90: f64,
}

/// What to multiply a forecast by, from how far those of finished runs were off (actual ÷ forecast): their quantiles, as
/// split conformal prediction takes them, so that nine of ten further runs of the same sort stay within p90 whatever the
/// forecast itself is like.
#[must_use]
pub fn spread(mut ratios: Vec<f64>) -> Spread {
    ratios.retain(|r| r.is_finite());
    if ratios.len() < PAST_RUNS_MIN {
        return Spread { p50: 1.0, p90: SPREAD_ASSUMED };
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let n = ratios.len();
    let quantile = |p: f64| ratios[(((n + 1) as f64 * p).ceil() as usize).clamp(1, n) - 1];
    Spread { p50: quantile(0.5), p90: quantile(0.9) }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn constant(ms: f64) -> ModelStatistic {
        let quantiles_ms = vec![ms; STEPS + 1];
        ModelStatistic {
            model: "mock/echo".into(),
            jobs: 50,
            mean_ms: ms,
            quantiles_ms,
            output_tokens: Some(9.5),
        }
    }

    #[test]
    fn equal_probes_take_as_many_rounds_as_there_are() {
        let statistic = constant(100.0);
        let takes = |jobs, slots| duration_ms(&[Work { jobs, statistic: &statistic }], slots);
        assert_eq!(takes(40, 8.0), Some(500.0));
        assert_eq!(takes(3, 8.0), Some(100.0), "no shorter than one");
        assert_eq!(takes(0, 8.0), Some(0.0));
        assert_eq!(takes(1, 0.0), None, "nobody runs them");
        let both =
            [Work { jobs: 8, statistic: &constant(100.0) }, Work { jobs: 8, statistic: &constant(300.0) }];
        assert_eq!(duration_ms(&both, 8.0), Some(500.0), "a round of 200 on average, and the last takes 300");
    }

    #[test]
    fn the_tightest_ceiling_of_a_limit_counts_and_is_shared() {
        let load = Load { calls: 120.0, tokens: 30_000.0, work_ms: 12_000.0 };
        let of = |in_flight, requests_per_minute, tokens_per_minute, others| {
            limited_ms(&Ceilings { in_flight, requests_per_minute, tokens_per_minute }, load, others)
        };
        assert_eq!(of(None, None, None, 3), 0.0);
        assert_eq!(of(Some(4), None, None, 0), 3_000.0);
        assert_eq!(of(Some(4), Some(60), None, 0), 120_000.0);
        assert_eq!(of(Some(4), Some(60), Some(10_000), 0), 180_000.0);
        assert_eq!(of(Some(4), Some(60), Some(10_000), 1), 360_000.0);
    }

    #[test]
    fn quantiles_are_read_between_their_steps() {
        let quantiles_ms = (0..=STEPS).map(|i| i as f64 * 10.0).collect();
        let statistic = ModelStatistic { quantiles_ms, ..constant(100.0) };
        assert_eq!([0.0, 0.5, 0.525, 1.0].map(|p| statistic.quantile(p)), [0.0, 100.0, 105.0, 200.0]);
    }

    #[test]
    fn few_answers_say_nothing_about_their_length() {
        assert_eq!(constant(1.0).usual_output(), Some(10));
        assert_eq!(ModelStatistic { jobs: ANSWERS_MIN - 1, ..constant(1.0) }.usual_output(), None);
    }

    #[test]
    fn a_spread_of_few_runs_is_assumed_and_of_many_is_theirs() {
        assert_eq!(spread(vec![9.0; PAST_RUNS_MIN - 1]), Spread { p50: 1.0, p90: SPREAD_ASSUMED });
        let ratios = (1..=99).map(|i| f64::from(i) / 50.0).collect();
        assert_eq!(spread(ratios), Spread { p50: 1.0, p90: 1.8 });
    }

    #[test]
    fn nine_of_ten_stay_within_p90_however_wrong_the_forecast_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // A forecast that is always too short, with a long tail.
        let mut ratio = || 2.0 - f64::ln(1.0 - rng.random::<f64>());
        let (mut within, rounds) = (0, 4_000);
        for _ in 0..rounds {
            let known = spread((0..50).map(|_| ratio()).collect());
            within += usize::from(ratio() <= known.p90);
        }
        let part = f64::from(u32::try_from(within).unwrap()) / f64::from(rounds);
        assert!((0.88..0.94).contains(&part), "{part}");
    }
}
