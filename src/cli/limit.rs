//! `runlane limit`.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::acting::{Acting, service};
use super::output::{lines, say, table};
use crate::config::Config;
use crate::domain::rate_limit::{Ceilings, RateLimit};

/// What to do with limits.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every limit, what of it is used, and what holds it.
    List,
    /// Set the ceilings of a provider or a model; what is left out has none.
    Set {
        /// A provider such as openai, or a model: provider/name.
        name: String,
        /// Jobs in flight at once.
        #[arg(long, value_name = "N")]
        in_flight: Option<i32>,
        /// Calls within any 60 seconds.
        #[arg(long, value_name = "N")]
        requests_per_minute: Option<i32>,
        /// Tokens, in and out, within any 60 seconds.
        #[arg(long, value_name = "N")]
        tokens_per_minute: Option<i32>,
        #[command(flatten)]
        acting: Acting,
    },
    /// Let the jobs of a held provider or model go on. Mend first what it refused.
    Release {
        /// The provider or the model.
        name: String,
        #[command(flatten)]
        acting: Acting,
    },
}

/// Does it, and prints the limits concerned as they are then.
///
/// # Errors
/// When the database cannot be reached, or it refuses.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    let limits = match arguments.command {
        Command::List => service.rate_limits().await?,
        Command::Set { name, in_flight, requests_per_minute, tokens_per_minute, acting } => {
            let ceilings = Ceilings { in_flight, requests_per_minute, tokens_per_minute };
            vec![service.set_limit(&acting.requester()?, &name, ceilings).await?]
        }
        Command::Release { name, acting } => {
            vec![service.release_limit(&acting.requester()?, &name).await?]
        }
    };
    if arguments.json {
        return say(&format!("{:#}", limits.iter().map(as_json).collect::<Value>()));
    }
    if limits.is_empty() {
        return say("No limit is set and nothing is held: `runlane limit set` sets one.");
    }
    say(&list(&limits))
}

fn as_json(limit: &RateLimit) -> Value {
    json!({
        "name": limit.name, "inFlightMax": limit.ceilings.in_flight,
        "requestsPerMinute": limit.ceilings.requests_per_minute, "tokensPerMinute": limit.ceilings.tokens_per_minute,
        "setBy": limit.set.as_ref().map(|(by, _)| by), "setAt": limit.set.as_ref().map(|(_, at)| at),
        "inFlight": limit.in_flight, "bearable": limit.bearable, "requests": limit.requests, "tokens": limit.tokens,
        "heldUntil": limit.held_until,
        "hold": limit.hold.as_ref().map(|h| json!({ "since": h.since, "code": h.code, "reason": h.reason })),
    })
}

fn list(limits: &[RateLimit]) -> String {
    let of = |used: i64, ceiling: Option<i32>| {
        ceiling.map_or_else(|| format!("{used} of any"), |n| format!("{used} of {n}"))
    };
    let mut all = table(&["limit", "in flight", "requests/min", "tokens/min", "bears now", "set by"]);
    for limit in limits {
        all.add_row([
            limit.name.clone(),
            of(limit.in_flight, limit.ceilings.in_flight),
            of(limit.requests, limit.ceilings.requests_per_minute),
            of(limit.tokens, limit.ceilings.tokens_per_minute),
            limit.bearable.map_or_else(String::new, |n| n.to_string()),
            limit.set.as_ref().map_or_else(String::new, |(by, _)| by.clone()),
        ]);
    }
    for column in all.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut parts = vec![lines(&all)];
    parts.extend(limits.iter().filter_map(hold));
    parts.join("\n")
}

/// What holds it, and what there is to do.
fn hold(limit: &RateLimit) -> Option<String> {
    let at = |at: &chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    if let Some(hold) = &limit.hold {
        let (name, since) = (&limit.name, at(&hold.since));
        return Some(format!(
            "{name} is held since {since} ({}: {}): mend that, then `runlane limit release {name}`.",
            hold.code, hold.reason
        ));
    }
    limit.held_until.as_ref().map(|until| format!("{} asked to wait until {}.", limit.name, at(until)))
}
