//! What every probe of a run is called with.

use serde::{Deserialize, Serialize};
use validator::Validate;

use super::validation::Checker;

/// The parameters of probes. A definition's are the defaults of its runs; what is left out everywhere is the
/// provider's to choose, and the kind's own setting for the timeout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
pub struct RunParams {
    /// 0 to 2.
    #[validate(range(min = 0.0, max = 2.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Tokens of an answer: 1 to 1,000,000.
    #[validate(range(min = 1, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i32>,
    /// Turns of a conversation: 1 to 100.
    #[validate(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<i32>,
    /// For providers that take one: 0 to 2³¹−1.
    #[validate(range(min = 0, max = 2_147_483_647))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i32>,
    /// How long an attempt may take: 1 to 86,400 (a day).
    #[validate(range(min = 1, max = 86_400))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

impl RunParams {
    /// Notes what is out of range.
    pub fn check(&self, checker: &mut Checker) {
        if self.temperature.is_some_and(|t| !t.is_finite()) {
            checker.within("temperature", |c| c.error("is no finite number: give a number from 0 to 2"));
        } else {
            checker.derived(self);
        }
    }

    /// These, and `defaults` where they say nothing.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            // Adding zero turns -0 into 0: equal numbers are then written equally.
            temperature: self.temperature.or(defaults.temperature).map(|t| t + 0.0),
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            max_turns: self.max_turns.or(defaults.max_turns),
            seed: self.seed.or(defaults.seed),
            timeout_seconds: self.timeout_seconds.or(defaults.timeout_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(params: RunParams) -> Vec<String> {
        let mut checker = Checker::new("params", 10);
        params.check(&mut checker);
        checker.finish().err().map_or_else(Vec::new, |e| e.iter().map(|e| e.field.clone()).collect())
    }

    #[test]
    fn ends_of_the_ranges_are_inside() {
        let least = RunParams {
            temperature: Some(0.0),
            max_tokens: Some(1),
            max_turns: Some(1),
            seed: Some(0),
            timeout_seconds: Some(1),
        };
        let most = RunParams {
            temperature: Some(2.0),
            max_tokens: Some(1_000_000),
            max_turns: Some(100),
            seed: Some(i32::MAX),
            timeout_seconds: Some(86_400),
        };
        assert_eq!((wrong(least), wrong(most)), (vec![], vec![]));
    }

    #[test]
    fn all_that_is_outside_is_named() {
        let below = RunParams {
            temperature: Some(-0.1),
            max_tokens: Some(0),
            max_turns: Some(0),
            seed: Some(-1),
            timeout_seconds: Some(0),
        };
        let above = RunParams {
            temperature: Some(2.1),
            max_tokens: Some(1_000_001),
            max_turns: Some(101),
            seed: None,
            timeout_seconds: Some(86_401),
        };
        let all = [
            "params.maxTokens",
            "params.maxTurns",
            "params.seed",
            "params.temperature",
            "params.timeoutSeconds",
        ];
        assert_eq!(wrong(below), all);
        assert_eq!(wrong(above).len(), 4);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for temperature in [f64::NAN, f64::INFINITY] {
            let params = RunParams { temperature: Some(temperature), ..RunParams::default() };
            assert_eq!(wrong(params), ["params.temperature"]);
        }
    }

    #[test]
    fn what_is_left_out_is_left_out_of_the_json_too() {
        let params = RunParams { max_tokens: Some(5), ..RunParams::default() };
        assert_eq!(serde_json::to_string(&params).unwrap(), r#"{"maxTokens":5}"#);
    }
}
