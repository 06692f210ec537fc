//! `runlane schema`: the generated files that are committed.

use clap::{Args, ValueEnum};

/// Which file.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to print.
    #[arg(value_enum, default_value = "graphql")]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// schema/schema.graphql
    Graphql,
    /// .env.example
    Env,
}

/// Prints the file.
pub fn print(arguments: &Arguments) {
    match arguments.what {
        What::Graphql => print!("{}", crate::graphql::sdl()),
        What::Env => print!("{}", crate::config::env_example()),
    }
}
