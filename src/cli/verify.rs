//! `runlane verify`: whether the database is as it must be.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use crate::app::{DATABASE_WAIT, command_store_with};
use crate::config::Config;
use crate::domain::verify::{Expectations, Verified, Violation};
use crate::store::{PoolSettings, rules};

/// The exit code when it cannot be told.
pub(super) const CANNOT_RUN: u8 = 2;
/// How long after the end of a lease other nodes have its jobs, besides one lease after a start of PostgreSQL.
const RESCUED_WITHIN: Duration = Duration::from_secs(10);

/// What to check.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Everything should have ended: a run or a job that waits or runs is a violation.
    #[arg(long)]
    quiescent: bool,
    /// A file of ids that startRun has given out, one a line: each must exist.
    #[arg(long, value_name = "FILE")]
    expect_runs: Option<PathBuf>,
    /// Print a JSON object a line: each violation, and at the end what was checked.
    #[arg(long)]
    json: bool,
    /// Print the rules and check nothing.
    #[arg(long)]
    list: bool,
}

/// Prints every violation; the exit code is 0 when there is none, else 1.
///
/// # Errors
/// When it cannot be told: the database cannot be reached or refuses, or the file cannot be read.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut out = Printer { out: BufWriter::new(io::stdout()), json: arguments.json, failed: None };
    if arguments.list {
        for rule in rules() {
            out.print(&rule, || format!("{:4} {:24} {}", rule.invariant, rule.check, rule.rule));
        }
        out.finish()?;
        return Ok(ExitCode::SUCCESS);
    }
    let lease = Duration::from_millis(config.numbers.lease_ms);
    let expected = Expectations {
        runs: arguments.expect_runs.as_deref().map(read_ids).transpose()?.unwrap_or_default(),
        quiescent: arguments.quiescent,
        rescued_within: lease + RESCUED_WITHIN,
    };
    // One snapshot for as long as it takes: a large database takes longer than any request may.
    let settings = PoolSettings {
        size: 1,
        acquire_timeout: DATABASE_WAIT,
        statement_timeout: Duration::ZERO,
        lock_timeout: Duration::from_millis(config.numbers.lock_timeout_ms),
    };
    let store = command_store_with(&config, "runlane verify", settings).await?;
    let verified = store
        .verify(&expected, |violation| {
            out.print(&violation, || {
                let Violation { check, invariant, subject, detail } = &violation;
                format!("{invariant} {check}: {subject}: {detail}")
            });
        })
        .await
        .context("cannot verify the database")?;
    out.print(&verified, || {
        let Verified { checks, runs, jobs, attempts, violations } = verified;
        format!("{violations} violations; {checks} rules over {runs} runs, {jobs} jobs, {attempts} attempts")
    });
    out.finish()?;
    Ok(if verified.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints lines as they come; an error is told at the end.
struct Printer<W: Write> {
    out: W,
    json: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, object: &impl Serialize, line: impl FnOnce() -> String) {
        if self.failed.is_some() {
            return;
        }
        let printed = if self.json {
            serde_json::to_string(object)
                .map_err(io::Error::from)
                .and_then(|json| writeln!(self.out, "{json}"))
        } else {
            writeln!(self.out, "{}", line())
        };
        self.failed = printed.err();
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.failed.take().map_or_else(|| self.out.flush(), Err).context("cannot print what was found")
    }
}

fn read_ids(path: &Path) -> anyhow::Result<Vec<Uuid>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .map(|(n, line)| {
            line.parse().with_context(|| {
                format!("{}, line {n}: {line:?} is no run's id: give one id a line", path.display())
            })
        })
        .collect()
}
