//! `runlane deadletter`.

mod show;

use std::str::FromStr;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::acting::{Acting, service};
use super::output::say;
use crate::config::Config;
use crate::domain::dead_letter::{
    DeadLetterFilter, DeadLetterReason, DeadLetterStatus, Redrive, Redriven, Resolution,
};
use crate::domain::page::{PageRequest, cursor, parse_cursor};
use crate::domain::{dead_letter::DeadLetter, text_enum::UnknownState};

/// Every status.
const ANY: &str = "any";
/// How many causes a list shows.
const CAUSES_SHOWN: i64 = 10;

/// What to do with dead letters.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show dead letters, newest first, and what many of them have in common.
    List {
        #[command(flatten)]
        filter: Filter,
        /// In this status.
        #[arg(long, default_value = "pending", value_parser = statuses())]
        status: StatusChoice,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
        /// Only what follows the place that an earlier list ended with.
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
    },
    /// Show one dead letter: the job, what it was asked, all its attempts.
    Show {
        /// Its id.
        id: String,
    },
    /// Close one dead letter. Its job stays as it is.
    Resolve {
        /// Its id.
        id: String,
        /// manually_resolved: dealt with; permanently_failed: it stays failed; cancelled: nobody needs it any more.
        #[arg(long, value_parser = one_of::<Resolution>(Resolution::ALL.iter().map(|r| r.as_str())))]
        resolution: Resolution,
        /// What you found and did.
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
        /// A JSON object, laid over what the dead letter has.
        #[arg(long, value_name = "JSON", value_parser = object)]
        metadata: Option<Value>,
        #[command(flatten)]
        acting: Acting,
    },
    /// Let the jobs of pending dead letters try again, and close these dead letters.
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// All that are pending: needed where nothing else says which.
        #[arg(long)]
        all: bool,
        /// How many of the jobs become due each minute; left out, all at once.
        #[arg(long, value_name = "PER_MINUTE")]
        rate: Option<i32>,
        /// Say what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        acting: Acting,
    },
}

/// Which: all that are given must hold.
#[derive(Debug, Args)]
struct Filter {
    /// Of this run.
    #[arg(long, value_name = "RUN")]
    run: Option<Uuid>,
    /// Of runs of this definition.
    #[arg(long, value_name = "DEFINITION")]
    definition: Option<Uuid>,
    /// For this reason; may be given several times.
    #[arg(long, value_name = "REASON", value_parser = one_of::<DeadLetterReason>(DeadLetterReason::ALL.iter().map(|r| r.as_str())))]
    reason: Vec<DeadLetterReason>,
    /// That look like this.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Whose last error was this, such as network.
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// Of this model.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Made at this time or later, such as 2027-01-15T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    #[arg(long, value_name = "TIME")]
    created_before: Option<DateTime<Utc>>,
}

impl From<Filter> for DeadLetterFilter {
    fn from(filter: Filter) -> Self {
        Self {
            run_id: filter.run,
            reasons: (!filter.reason.is_empty()).then_some(filter.reason),
            statuses: None,
            fingerprint: filter.fingerprint,
            error_code: filter.error_code,
            model: filter.model,
            definition_id: filter.definition,
            created_after: filter.created_after,
            created_before: filter.created_before,
            visible_to: None,
        }
    }
}

/// One status, or any.
#[derive(Debug, Clone, Copy)]
struct StatusChoice(Option<DeadLetterStatus>);

/// A value of an enum, by its name; a wrong one is answered with all there are.
fn one_of<T>(names: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = UnknownState> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

fn statuses() -> impl TypedValueParser<Value = StatusChoice> {
    let names = DeadLetterStatus::ALL.iter().map(|s| s.as_str()).chain([ANY]);
    PossibleValuesParser::new(names).try_map(|name| match name.as_str() {
        ANY => Ok(StatusChoice(None)),
        name => name.parse().map(|status| StatusChoice(Some(status))),
    })
}

fn object(text: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(text).context("this is no JSON")?;
    anyhow::ensure!(value.is_object(), "give a JSON object, such as {{\"ticket\": 17}}");
    Ok(value)
}

/// Does it, and prints what came of it.
///
/// # Errors
/// When the database cannot be reached, there is no such dead letter, or the service refuses.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    // Who only looks needs no name.
    let anybody = Acting::default().requester()?;
    match arguments.command {
        Command::List { filter, status, limit, after } => {
            let mut filter = DeadLetterFilter::from(filter);
            filter.statuses = status.0.map(|status| vec![status]);
            let after = after.as_deref().map(parse_cursor::<DeadLetter>).transpose().context("--after")?;
            let page = PageRequest { limit, after, count: true };
            let entries = service.dead_letters(&anybody, &filter, &page).await?;
            let reasons = service.dead_letters_by_reason(&anybody, &filter).await?;
            let causes = service.dead_letters_by_fingerprint(&anybody, &filter, CAUSES_SHOWN).await?;
            if arguments.json {
                let next = entries.items.last().filter(|_| entries.has_next).map(cursor);
                let shown = json!({
                    "totalCount": entries.total,
                    "next": next,
                    "byReason": reasons.iter().map(show::reason_as_json).collect::<Value>(),
                    "byFingerprint": causes.iter().map(show::cause_as_json).collect::<Value>(),
                    "entries": entries.items.iter().map(show::as_json).collect::<Value>(),
                });
                say(&format!("{shown:#}"))
            } else {
                say(&show::list(&entries, &reasons, &causes))
            }
        }
        Command::Show { id } => {
            let entry = service.dead_letter(&anybody, &id).await?.ok_or_else(|| {
                anyhow::anyhow!(
                    "there is no dead letter with the id {id}: `runlane deadletter list` shows them"
                )
            })?;
            show_one(&entry, arguments.json)
        }
        Command::Resolve { id, resolution, notes, metadata, acting } => {
            let who = acting.requester()?;
            let entry = service.resolve_dead_letter(&who, &id, resolution, notes, metadata).await?;
            show_one(&entry, arguments.json)
        }
        Command::Redrive { filter, all, rate, dry_run, acting } => {
            let filter = DeadLetterFilter::from(filter);
            anyhow::ensure!(
                all || filter != DeadLetterFilter::default(),
                "say which, for example by --run or --fingerprint, or give --all"
            );
            let redrive = Redrive { filter, per_minute: rate, dry_run };
            let done = service.redrive_dead_letters(&acting.requester()?, redrive).await?;
            say(&report(&done, dry_run, arguments.json))
        }
    }
}

fn show_one(entry: &DeadLetter, json: bool) -> anyhow::Result<()> {
    say(&if json { format!("{:#}", show::as_json(entry)) } else { show::one(entry) })
}

fn report(done: &Redriven, dry_run: bool, json: bool) -> String {
    if json {
        let skipped: Value =
            done.skipped.iter().map(|(why, n)| json!({ "why": why.as_str(), "count": n })).collect();
        let shown = json!({
            "dryRun": dry_run, "matched": done.matched, "redriven": done.redriven, "skipped": skipped,
            "runs": done.runs, "finishesAt": done.finishes_at,
        });
        return format!("{shown:#}");
    }
    let did = if dry_run { "would be redriven (dry run: nothing was changed)" } else { "redriven" };
    let mut lines = vec![format!("{} of {} matching dead letters {did}", done.redriven, done.matched)];
    lines.extend(done.skipped.iter().map(|(why, n)| format!("  {n} skipped: {}", show::words(why.as_str()))));
    lines.extend(done.runs.iter().map(|run| format!("  run {run}")));
    lines.extend(done.finishes_at.map(|at| format!("  the last of their jobs is due at {}", show::time(at))));
    lines.join("\n")
}
