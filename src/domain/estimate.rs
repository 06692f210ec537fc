//! What a run is expected to need before anything of it has run: tokens by the length of its texts.

use rust_decimal::Decimal;

use super::definition::DefinitionContent;
use super::params::RunParams;
use super::prices::Prices;

/// Bytes of text that are about a token. English has about four; other languages have fewer, so they cost more.
const BYTES_PER_TOKEN: u64 = 4;

/// The lengths of a sample's prompts, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptSizes {
    /// How many prompts.
    pub count: u64,
    /// All together.
    pub total: u64,
    /// The longest.
    pub longest: u64,
}

/// Tokens of one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// What the model reads, over all turns.
    pub input: u64,
    /// What it writes, over all turns.
    pub output: u64,
}

impl Tokens {
    /// US dollars.
    #[must_use]
    pub fn cost(&self, prices: &Prices) -> Decimal {
        prices.cost(self.input, self.output)
    }
}

/// What all conversations of a run have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    preamble: u64,
    followups: Vec<u64>,
    /// Tokens of an answer that the run allows; `None` leaves it to the provider.
    output_max: Option<u64>,
    /// Tokens of an answer where nothing better is known.
    output_expected: u64,
}

impl Conversation {
    /// That of a run of this definition with these params. `output_expected`: tokens of an answer.
    #[must_use]
    pub fn new(definition: &DefinitionContent, params: &RunParams, output_expected: u64) -> Self {
        let bytes = |text: &String| text.len() as u64;
        let turns = params.max_turns.map_or(usize::MAX, |n| n.unsigned_abs() as usize);
        let followups = definition.followups.iter().flatten().take(turns.saturating_sub(1));
        Self {
            preamble: definition.preamble.as_ref().map_or(0, bytes),
            followups: followups.map(bytes).collect(),
            output_max: params.max_tokens.map(|n| n.unsigned_abs().into()),
            output_expected,
        }
    }

    /// Calls of the model.
    #[must_use]
    pub fn turns(&self) -> u64 {
        1 + self.followups.len() as u64
    }

    /// What a job whose prompt has so many bytes is expected to use.
    #[must_use]
    pub fn expected(&self, prompt: u64) -> Tokens {
        let output = self.output_max.map_or(self.output_expected, |max| max.min(self.output_expected));
        self.tokens(prompt, output)
    }

    /// What a job whose prompt has so many bytes may use: as [`Conversation::expected`], but every answer is as long as the
    /// run allows. Where it allows any length this is no bound.
    #[must_use]
    pub fn at_most(&self, prompt: u64) -> Tokens {
        self.tokens(prompt, self.output_max.unwrap_or(self.output_expected))
    }

    /// Every turn sends what has been said so far again.
    fn tokens(&self, prompt: u64, output: u64) -> Tokens {
        let mut said = self.preamble.div_ceil(BYTES_PER_TOKEN);
        let mut tokens = Tokens::default();
        for bytes in std::iter::once(prompt).chain(self.followups.iter().copied()) {
            said += bytes.div_ceil(BYTES_PER_TOKEN);
            tokens.input += said;
            tokens.output += output;
            said += output;
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(params: RunParams) -> Conversation {
        let definition: DefinitionContent = serde_json::from_value(serde_json::json!({
            "schemaVersion": 1, "preamble": "12345678", "followups": ["1234", "12345"],
        }))
        .unwrap();
        Conversation::new(&definition, &params, 100)
    }

    #[test]
    fn every_turn_reads_what_was_said_before_it() {
        let all = conversation(RunParams::default()).expected(12);
        // 2 + 3; with the answer and the next question 106; then 208.
        assert_eq!(all, Tokens { input: 5 + 106 + 208, output: 300 });
        let two = conversation(RunParams { max_turns: Some(2), ..RunParams::default() });
        assert_eq!((two.turns(), two.expected(12)), (2, Tokens { input: 5 + 106, output: 200 }));
    }

    #[test]
    fn an_answer_is_expected_to_be_no_longer_than_the_run_allows_and_may_be_as_long() {
        let of = |max| {
            let c =
                conversation(RunParams { max_turns: Some(1), max_tokens: Some(max), ..RunParams::default() });
            (c.expected(0).output, c.at_most(0).output)
        };
        assert_eq!(of(10), (10, 10));
        assert_eq!(of(1_000), (100, 1_000));
    }
}
