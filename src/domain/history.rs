//! What happened, in one line of time: what people did, what the system did by itself, and the attempts.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::page::{BadCursor, Listed};
use super::text_enum::text_enum;
use super::view::Attempt;

text_enum! {
    /// What kind of thing happened.
    HistoryKind {
        /// Somebody did something.
        Act = "ACT",
        /// Something changed, by an act or by itself.
        Transition = "TRANSITION",
        /// A node claimed a job.
        Claim = "CLAIM",
        /// An attempt ended.
        End = "END",
    }
}

/// Whose history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryOf {
    /// Everything that is on record, save attempts.
    All,
    /// What concerns a run and its jobs.
    Run(Uuid),
    /// What concerns a job: itself, its lane and its run.
    Job(i64),
    /// What a node did and what was done to it, save attempts that have ended.
    Node(Uuid),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Its place in the list.
    pub key: HistoryKey,
    /// Of which kind it is.
    pub kind: HistoryKind,
    /// The name of the mutation, or what became of the subject.
    pub action: String,
    /// The token's subject; `system` for what nobody asked for.
    pub actor: String,
    /// The token's role.
    pub role: Option<String>,
    /// The `X-Request-ID` of the request that did it.
    pub request_id: Option<String>,
    /// What kind of thing it happened to.
    pub subject_kind: String,
    /// To which of them.
    pub subject_id: String,
    /// The run that it concerns.
    pub run_id: Option<Uuid>,
    /// What changed, as it was.
    pub before: Option<Value>,
    /// What changed, as it is since.
    pub after: Option<Value>,
    /// In words.
    pub note: Option<String>,
    /// Of a claim or its end: the attempt.
    pub attempt: Option<Attempt>,
}

/// The place of an entry: its time, and what tells entries of one moment apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryKey {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// 0 for the audit, 1 for claims, 2 for ends.
    pub source: i32,
    /// The entry of the audit, or the job.
    pub id: i64,
    /// The number of the claim.
    pub number: i32,
}

impl fmt::Display for HistoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.at.timestamp_micros(), self.source, self.id, self.number)
    }
}

impl FromStr for HistoryKey {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let bad = |_| BadCursor;
        match text.split(':').collect::<Vec<_>>()[..] {
            [at, source, id, number] => Ok(Self {
                at: DateTime::from_timestamp_micros(at.parse().map_err(bad)?).ok_or(BadCursor)?,
                source: source.parse().map_err(bad)?,
                id: id.parse().map_err(bad)?,
                number: number.parse().map_err(bad)?,
            }),
            _ => Err(BadCursor),
        }
    }
}

impl Listed for HistoryEntry {
    const LIST: &'static str = "history";
    type Key = HistoryKey;
    fn key(&self) -> HistoryKey {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_survives_its_text(micros in 0_i64..4_000_000_000_000_000, source in 0..3, id: i64, number: i32) {
            let key = HistoryKey { at: DateTime::from_timestamp_micros(micros).unwrap(), source, id, number };
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn nothing_else_is_a_place() {
        for text in ["", "1:2:3", "1:2:3:4:5", "x:0:0:0", "9223372036854775807:0:0:0"] {
            assert_eq!(text.parse::<HistoryKey>(), Err(BadCursor), "{text}");
        }
    }
}
