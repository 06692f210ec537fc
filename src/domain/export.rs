//! What leaves as a file: the rows of a run's results, the same in every format.

use chrono::{DateTime, Utc};

use super::text_enum::text_enum;

text_enum! {
    /// Which rows.
    ExportSubject {
        /// One row for each completed probe, with all that was said.
        Transcripts = "transcripts",
        /// One row for each probe, however it ended, without what was said.
        Scores = "scores",
    }
}

text_enum! {
    /// How they are written.
    ExportFormat {
        /// JSON Lines: one object a line.
        Jsonl = "jsonl",
        /// Comma-separated values (RFC 4180) with a header.
        Csv = "csv",
        /// Apache Parquet.
        Parquet = "parquet",
    }
}

impl ExportFormat {
    /// The type that HTTP says.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Parquet => PARQUET,
        }
    }
}

/// The media type of Parquet.
pub const PARQUET: &str = "application/vnd.apache.parquet";

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A JSON value.
    Json,
    /// An instant, to the microsecond.
    Time,
}

/// One value; none where there is no value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Text.
    Text(Option<String>),
    /// A whole number.
    Integer(Option<i64>),
    /// A JSON value, as text.
    Json(Option<String>),
    /// An instant.
    Time(Option<DateTime<Utc>>),
}

impl Cell {
    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let held = match self {
            Self::Text(text) | Self::Json(text) => text.as_ref().map_or(0, String::len),
            Self::Integer(_) | Self::Time(_) => 0,
        };
        size_of::<Self>() + held
    }
}

/// The cells of one row, in the order of [`ExportSubject::columns`].
pub type ExportRow = Vec<Cell>;

use CellType::{Integer, Json, Text, Time};

const TRANSCRIPTS: &[(&str, CellType)] = &[
    ("jobId", Text),
    ("scenarioKey", Text),
    ("dimensions", Json),
    ("modelId", Text),
    ("modelVersion", Text),
    ("score", Integer),
    ("costUsd", Text),
    ("inputTokens", Integer),
    ("outputTokens", Integer),
    ("reasoningTokens", Integer),
    ("cacheReadTokens", Integer),
    ("cacheWriteTokens", Integer),
    ("latencyMs", Integer),
    ("createdAt", Time),
    ("turns", Json),
];

const SCORES: &[(&str, CellType)] = &[
    ("jobId", Text),
    ("scenarioKey", Text),
    ("dimensions", Json),
    ("modelId", Text),
    ("status", Text),
    ("errorCode", Text),
    ("score", Integer),
    ("costUsd", Text),
    ("inputTokens", Integer),
    ("outputTokens", Integer),
    ("reasoningTokens", Integer),
    ("cacheReadTokens", Integer),
    ("cacheWriteTokens", Integer),
    ("latencyMs", Integer),
    ("finishedAt", Time),
];

impl ExportSubject {
    /// The columns: name and type.
    #[must_use]
    pub const fn columns(self) -> &'static [(&'static str, CellType)] {
        match self {
            Self::Transcripts => TRANSCRIPTS,
            Self::Scores => SCORES,
        }
    }
}
