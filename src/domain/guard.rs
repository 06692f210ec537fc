//! What a run may cost and how often it may fail, and what happens then.

use rust_decimal::Decimal;

use super::text_enum::text_enum;
use super::validation::Checker;

text_enum! {
    /// What a run's own guard does.
    GuardAction {
        /// Pauses the run: somebody looks, and resumes it.
        Pause = "PAUSE",
        /// Ends it as FAILED: what waits is cancelled.
        Stop = "STOP",
    }
}

/// The largest budget, in US dollars: beyond, a figure is a mistake.
const USD_MAX: i64 = 1_000_000_000;
/// Decimals of a dollar that an amount may have.
const DECIMALS_MAX: u32 = 9;

/// What a run may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// US dollars.
    pub usd: Decimal,
    /// What happens when no further job fits.
    pub action: GuardAction,
}

/// How often probes of a run may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureGuard {
    /// Failed of finished, 0 to below 1: more trips the guard.
    pub max_rate: f64,
    /// So many must have finished before it is looked at.
    pub min_finished: i32,
    /// What happens then.
    pub action: GuardAction,
}

/// Notes an amount that is no positive number of dollars.
pub fn check_usd(checker: &mut Checker, usd: Decimal) {
    if usd <= Decimal::ZERO || usd > Decimal::from(USD_MAX) || usd.normalize().scale() > DECIMALS_MAX {
        checker.error(format!(
            "is {usd}, which is no amount: give US dollars as a decimal text such as \"2.50\", above 0, at most {USD_MAX}, with at most {DECIMALS_MAX} decimals"
        ));
    }
}

/// Why the run's guard has paused or stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// `budget` or `failureRate`.
    pub by: String,
    /// In words.
    pub reason: String,
}

/// What a run's own guard goes by, and what it has done.
#[derive(Debug, Clone, PartialEq)]
pub struct RunGuards {
    /// What it may cost.
    pub budget: Option<Budget>,
    /// US dollars that are set aside for what runs; 0 without prices.
    pub reserved_usd: Decimal,
    /// How often it may fail.
    pub failures: Option<FailureGuard>,
    /// That one of these has paused or stopped it.
    pub halt: Option<Halt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_above_zero_and_has_an_end() {
        let is_fine = |text: &str| {
            let mut checker = Checker::new("input", 10);
            checker.within("budgetUsd", |c| check_usd(c, text.parse().unwrap()));
            checker.finish().is_ok()
        };
        for fine in ["0.000000001", "2.50", "1000000000", "1.0000000000"] {
            assert!(is_fine(fine), "{fine}");
        }
        for wrong in ["0", "-1", "0.0000000001", "1000000000.1"] {
            assert!(!is_fine(wrong), "{wrong}");
        }
    }
}
