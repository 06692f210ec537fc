//! The command line.

mod acting;
mod archive;
mod dead_letter;
mod demo;
mod dev;
mod doctor;
mod export;
mod lane;
mod limit;
mod local;
mod node;
mod output;
mod prices;
mod queue;
mod restored;
mod run;
mod schema;
mod staleness;
mod token;
mod verify;
mod with_database;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::domain::clock::SystemClock;
use crate::telemetry;

/// Runlane: a run-control server for model evaluations.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Settings come from the environment and from .env; .env.example lists them all."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an example from start to results, on this machine alone.
    Demo,
    /// Serve on this machine alone, with a private PostgreSQL and a ready-made token.
    Dev,
    /// Serve the API, and execute jobs unless told otherwise.
    Serve {
        /// Whether to execute jobs as well; overrides RUNLANE_EXECUTE.
        #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
        execute: Option<bool>,
    },
    /// Execute jobs only.
    Work,
    /// Bring the database's schema to this version.
    Migrate,
    /// Look for what is wrong: settings, database, durability, connections, clock, disk, workers, queue.
    Doctor(doctor::Arguments),
    /// Check the database against every invariant. Exits with 0 when all hold, 1 when one does not, 2 when it cannot tell.
    Verify(verify::Arguments),
    /// Move the jobs of runs that ended long enough ago into the archive now.
    Archive(archive::Arguments),
    /// Drop what the archive has kept long enough.
    Purge(archive::Arguments),
    /// Show what a restored database may run a second time.
    Restored(restored::Arguments),
    /// Write a run's transcripts or scores as JSON Lines, CSV or Parquet.
    Export(export::Arguments),
    /// Show what models cost, and as of when.
    Prices(prices::Arguments),
    /// Print a token signed with RUNLANE_JWT_SECRET.
    Token(token::Arguments),
    /// Look at jobs that gave up, close them, and let them try again.
    #[command(name = "deadletter")]
    DeadLetter(dead_letter::Arguments),
    /// Look at lanes, the jobs of one run that share a kind and a model, and release held ones.
    Lane(lane::Arguments),
    /// Look at the limits on providers and models that all nodes share, set them, and release held ones.
    Limit(limit::Arguments),
    /// Look after the nodes of an installation.
    Node(node::Arguments),
    /// See whether anything may start; pause and resume everything.
    Queue(queue::Arguments),
    /// Print a generated file: the GraphQL schema or .env.example.
    Schema(schema::Arguments),
    /// Show what takes too long.
    Staleness(staleness::Arguments),
    /// Run a command over a fresh database that is removed afterwards.
    #[command(hide = true)]
    WithDatabase(with_database::Arguments),
}

/// Runs the program with the process's arguments. What goes wrong is said on stderr, for people.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Elsewhere 1 says that something went wrong; here, that something is wrong with the database.
    let failure = match cli.command {
        Command::Verify(_) => ExitCode::from(verify::CANNOT_RUN),
        _ => ExitCode::FAILURE,
    };
    run_command(cli).unwrap_or_else(|error| {
        eprintln!("runlane: {}", explained(&error));
        failure
    })
}

/// The error and its causes. Many errors quote their cause; nothing is said twice.
fn explained(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        text
    })
}

fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        Err(error) => return Err(error).context("cannot read .env"),
    }
    if let Command::Schema(arguments) = cli.command {
        schema::print(&arguments);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::from_env();
    let clock = Arc::new(SystemClock);
    if let Command::Doctor(arguments) = &cli.command {
        // Mistakes in the settings are among what it reports.
        return Ok(runtime()?.block_on(doctor::run(config, clock, arguments)));
    }
    let mut config = config?;
    let is_quiet = !matches!(cli.command, Command::Dev | Command::Serve { .. } | Command::Work);
    if is_quiet && std::env::var_os("RUNLANE_LOG").is_none() {
        // What these print is for people; what is wrong still shows.
        config.log = "error".to_owned();
    }
    telemetry::install(&config);
    // Reads FAILPOINTS; what it names stays in force as long as this lives.
    #[cfg(feature = "failpoints")]
    let _failing = fail::FailScenario::setup();
    match cli.command {
        Command::Prices(arguments) => prices::print(&config, &arguments)?,
        Command::Token(arguments) => token::print(&config, clock, &arguments)?,
        Command::Serve { execute } => {
            config.execute = execute.unwrap_or(config.execute);
            runtime()?.block_on(run::serve(config, clock))?;
        }
        Command::Demo => runtime()?.block_on(demo::run(config, clock))?,
        Command::Dev => runtime()?.block_on(dev::serve(config, clock))?,
        Command::Work => runtime()?.block_on(run::work(config, clock))?,
        Command::Archive(arguments) => runtime()?.block_on(archive::archive(config, arguments))?,
        Command::Purge(arguments) => runtime()?.block_on(archive::purge(config, arguments))?,
        Command::DeadLetter(arguments) => runtime()?.block_on(dead_letter::run(config, arguments))?,
        Command::Lane(arguments) => runtime()?.block_on(lane::run(config, arguments))?,
        Command::Limit(arguments) => runtime()?.block_on(limit::run(config, arguments))?,
        Command::Node(arguments) => runtime()?.block_on(node::run(config, arguments))?,
        Command::Export(arguments) => runtime()?.block_on(export::run(config, arguments))?,
        Command::Queue(arguments) => runtime()?.block_on(queue::run(config, arguments))?,
        Command::Migrate => runtime()?.block_on(run::migrate(config))?,
        Command::Verify(arguments) => return runtime()?.block_on(verify::run(config, arguments)),
        Command::Restored(arguments) => runtime()?.block_on(restored::run(config, arguments))?,
        Command::WithDatabase(arguments) => {
            return runtime()?.block_on(with_database::run(config, arguments));
        }
        Command::Staleness(arguments) => runtime()?.block_on(staleness::run(config, arguments))?,
        Command::Schema(_) | Command::Doctor(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
