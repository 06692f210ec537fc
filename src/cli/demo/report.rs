//! The results as tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

/// Prints what people look at first.
pub fn print(basic: &Value, deep: &Value) {
    println!("\nRatings by model (basic analysis)");
    println!("{}", models(basic));
    println!("\nWhich model rates higher on the same scenario");
    println!("{}", wins(basic));
    println!("\nWhat moves the ratings (deep analysis)");
    println!("{}", dimensions(deep));
    println!("\nDo the models agree");
    println!("{}", correlations(deep));
    if let Some(first) = rows(&deep["pca"]["components"]).first() {
        let n = deep["outliers"]["count"].as_u64().unwrap_or_default();
        println!(
            "\nThe first principal component holds {} % of the variance; {n} scenarios stand out.",
            number(&scaled(&first["explained"], 100.0), 0)
        );
    }
    let coverage = &basic["coverage"];
    println!(
        "Coverage: {} of {} probes used, {} failed.",
        coverage["used"], coverage["expected"], coverage["failed"]
    );
    for warning in rows(&basic["warnings"]).iter().chain(rows(&deep["warnings"])) {
        println!("Note: {}", warning.as_str().unwrap_or_default());
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn models(basic: &Value) -> Table {
    let lines = rows(&basic["models"]).iter().map(|m| {
        vec![
            name(&m["modelId"]),
            m["n"].to_string(),
            number(&m["mean"], 2),
            number(&m["sd"], 2),
            format!("{} – {}", number(&m["interval"]["low"], 2), number(&m["interval"]["high"], 2)),
            number(&m["latencyMs"]["p50"], 0),
            number(&m["latencyMs"]["p95"], 0),
            m["tokens"]["output"].to_string(),
        ]
    });
    table(&["model", "n", "mean", "SD", "95 % interval", "p50 ms", "p95 ms", "tokens"], lines.collect())
}

fn wins(basic: &Value) -> Table {
    let lines = rows(&basic["winRates"]).iter().map(|w| {
        vec![
            format!("{} over {}", name(&w["modelA"]), name(&w["modelB"])),
            format!("{} : {}", w["winsA"], w["winsB"]),
            w["ties"].to_string(),
            number(&w["winRateA"], 2),
            format!("{} – {}", number(&w["interval"]["low"], 2), number(&w["interval"]["high"], 2)),
        ]
    });
    table(&["pair", "wins", "ties", "win rate", "95 % Wilson"], lines.collect())
}

fn dimensions(deep: &Value) -> Table {
    let lines = rows(&deep["dimensions"]).iter().map(|d| {
        vec![
            d["dimension"].as_str().unwrap_or_default().to_owned(),
            number(&d["h"], 2),
            number(&d["epsilonSquared"], 2),
            probability(&d["pAdjusted"]),
        ]
    });
    table(&["dimension", "H", "ε²", "p (adjusted)"], lines.collect())
}

fn correlations(deep: &Value) -> Table {
    let lines = rows(&deep["correlations"]).iter().map(|c| {
        vec![
            format!("{} and {}", name(&c["modelA"]), name(&c["modelB"])),
            c["n"].to_string(),
            number(&c["rho"], 2),
            probability(&c["pAdjusted"]),
        ]
    });
    table(&["pair", "n", "Spearman ρ", "p (adjusted)"], lines.collect())
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A mock's style says enough; any other model keeps its whole name.
fn name(model: &Value) -> String {
    let id = model.as_str().unwrap_or_default();
    let style = id.split_once("style=").map(|(_, rest)| rest.split('&').next().unwrap_or(rest));
    style.map_or_else(|| id.to_owned(), |style| format!("mock {style}"))
}

fn scaled(value: &Value, factor: f64) -> Value {
    value.as_f64().map_or(Value::Null, |v| Value::from(v * factor))
}

fn number(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |v| format!("{v:.decimals$}"))
}

fn probability(value: &Value) -> String {
    match value.as_f64() {
        Some(p) if p < 0.0001 => "< 0.0001".to_owned(),
        _ => number(value, 4),
    }
}
