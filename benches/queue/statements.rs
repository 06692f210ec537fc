//! What is asked of a database: every statement, as PostgreSQL's own log has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::stage::{Database, Stage};

/// How much of a statement tells which it is.
const NAME_CHARS: usize = 72;

/// Reads the part of PostgreSQL's log that was written since it was made.
pub struct Log {
    path: PathBuf,
    from: usize,
}

impl Log {
    /// Has sessions that begin from now on log their statements; `None` where the log cannot be read.
    pub async fn of(stage: &Stage, database: &Database) -> anyhow::Result<Option<Self>> {
        let Some(path) = stage.log() else { return Ok(None) };
        stage.log_statements(database).await?;
        let from = std::fs::read(&path)?.len();
        Ok(Some(Self { path, from }))
    }

    /// Forgets what was logged so far.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.from = std::fs::read(&self.path)?.len();
        Ok(())
    }

    /// Each statement by its beginning, and how often it was sent.
    pub fn counts(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let log = std::fs::read(&self.path)?;
        let text = String::from_utf8_lossy(&log[self.from..]);
        let mut counts = BTreeMap::new();
        let mut statement: Option<String> = None;
        for line in text.lines() {
            // What follows the first line of an entry is indented.
            if let Some(more) = line.strip_prefix('\t') {
                if let Some(begun) = &mut statement {
                    begun.push(' ');
                    begun.push_str(more);
                }
                continue;
            }
            count(&mut counts, statement.take());
            statement = ["LOG:  execute ", "LOG:  statement: "].iter().find_map(|mark| {
                let (_, rest) = line.split_once(mark)?;
                // The name of a prepared one differs from session to session.
                Some(rest.split_once(": ").map_or(rest, |(_, sql)| sql).to_owned())
            });
        }
        count(&mut counts, statement);
        Ok(counts)
    }
}

fn count(counts: &mut BTreeMap<String, usize>, statement: Option<String>) {
    let Some(statement) = statement else { return };
    let words: Vec<&str> = statement.split_whitespace().collect();
    *counts.entry(words.join(" ").chars().take(NAME_CHARS).collect()).or_default() += 1;
}

/// The statements, most frequent first.
pub fn by_frequency(counts: &BTreeMap<String, usize>) -> Vec<(&str, usize)> {
    let mut all: Vec<(&str, usize)> = counts.iter().map(|(name, &n)| (name.as_str(), n)).collect();
    all.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    all
}
