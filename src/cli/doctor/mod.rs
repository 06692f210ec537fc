//! `runlane doctor`: whether everything is as it should be, and what to do about what is not.

mod database;
mod machine;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::config::{Config, ConfigError};
use crate::domain::clock::Clock;
use report::Report;

/// How to say it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON: `{"ok", "version", "findings": [{"check", "level", "message"}]}`.
    #[arg(long)]
    json: bool,
}

/// Looks at everything and prints what it found; fails when something is in the way of running.
pub async fn run(
    config: Result<Config, ConfigError>,
    clock: Arc<dyn Clock>,
    arguments: &Arguments,
) -> ExitCode {
    let mut report = Report::default();
    match config {
        Ok(config) => {
            machine::settings(&config, &mut report);
            machine::providers(&config, &mut report);
            database::examine(&config, clock.as_ref(), &mut report).await;
            machine::disk(&config, &mut report);
            machine::workers(&config, &mut report).await;
        }
        Err(ConfigError(problems)) => {
            for problem in problems {
                report.error("settings", format!("{} {}", problem.variable, problem.message));
            }
        }
    }
    if arguments.json {
        println!("{:#}", report.to_json())
    } else {
        print!("{report}")
    }
    if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
