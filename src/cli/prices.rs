//! `runlane prices`.

use anyhow::Context;
use clap::Args;
use comfy_table::CellAlignment;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::output::{lines, say, table};
use crate::config::Config;
use crate::domain::ModelId;
use crate::domain::prices::PriceEntry;

/// Which prices.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the price of this model.
    #[arg(long, value_name = "PROVIDER/NAME")]
    model: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints what the configuration says about prices.
///
/// # Errors
/// When the text is no model id, or its price is unknown.
pub fn print(config: &Config, arguments: &Arguments) -> anyhow::Result<()> {
    let entries: Vec<&PriceEntry> = match &arguments.model {
        None => config.prices.entries().iter().collect(),
        Some(model) => {
            let id: ModelId = model.parse().context("--model")?;
            let entry = config.prices.find(id.as_str()).with_context(|| {
                format!("{model} has no price, so its cost is unknown: name a file that has one in RUNLANE_PRICES_FILE")
            })?;
            vec![entry]
        }
    };
    if arguments.json {
        let all: Vec<Value> = entries.iter().map(|e| as_json(e)).collect();
        return say(&format!("{:#}", Value::Array(all)));
    }
    let head = ["model", "input", "output", "reasoning", "cache read", "cache write", "as of", "source"];
    let mut shown = table(&head);
    for column in 1..=5 {
        if let Some(column) = shown.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let optional = |price: Option<Decimal>| price.map_or_else(|| "-".to_owned(), |p| p.to_string());
    for entry in entries {
        let p = &entry.prices;
        shown.add_row([
            entry.pattern.clone(),
            p.input.to_string(),
            p.output.to_string(),
            optional(p.reasoning),
            optional(p.cache_read),
            optional(p.cache_write),
            entry.as_of.to_string(),
            entry.source.clone(),
        ]);
    }
    say(&format!("US dollars per million tokens.\n\n{}", lines(&shown)))
}

fn as_json(entry: &PriceEntry) -> Value {
    let mut shown = entry.prices.to_protocol();
    shown["pattern"] = json!(entry.pattern);
    shown["asOf"] = json!(entry.as_of);
    shown["source"] = json!(entry.source);
    shown
}
