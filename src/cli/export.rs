//! `runlane export`: a run's transcripts or scores as a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::acting::{self, Acting};
use crate::config::Config;
use crate::domain::export::{ExportFormat, ExportSubject};
use crate::export::Export;

/// What to export.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run's id.
    run: String,
    /// Transcripts (one row for each completed probe, with all that was said) or scores (one for each probe).
    #[arg(long, default_value = "transcripts", value_parser = PossibleValuesParser::new(ExportSubject::ALL.iter().map(|s| s.as_str())).try_map(|text| text.parse::<ExportSubject>()))]
    what: ExportSubject,
    /// How it is written.
    #[arg(long, default_value = "jsonl", value_parser = PossibleValuesParser::new(ExportFormat::ALL.iter().map(|f| f.as_str())).try_map(|text| text.parse::<ExportFormat>()))]
    format: ExportFormat,
    /// The file, which appears when it is whole; standard output when left out.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When there is no such run, the database cannot be read, or the file cannot be written.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = acting::service(config).await?;
    let requester = Acting::default().requester()?;
    let rows = service.export(&requester, &arguments.run, arguments.what).await?;
    let export = Export::new(rows, arguments.what, arguments.format)?;
    let Some(path) = &arguments.output else {
        return write(export, &mut io::stdout().lock()).await.context("cannot write to standard output");
    };
    let partial = partial(path);
    let written = to_file(export, &partial).await;
    let placed = written.and_then(|()| Ok(fs::rename(&partial, path)?));
    if placed.is_err() && partial.exists() {
        fs::remove_file(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    placed.with_context(|| format!("cannot write {}", path.display()))
}

/// Where a file is until it is whole: beside its place.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

async fn to_file(export: Export, path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    write(export, &mut file).await?;
    Ok(file.sync_all()?)
}

async fn write(mut export: Export, out: &mut impl Write) -> anyhow::Result<()> {
    while let Some(piece) = export.next().await? {
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}
