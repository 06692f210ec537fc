//! `runlane node`.

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

use super::acting::{Acting, service};
use crate::config::Config;
use crate::domain::node::Node;

/// What to do with nodes.
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
    /// Show every node.
    List,
    /// Show one node.
    Show {
        /// Its id.
        node: String,
    },
    /// Let a node finish what it runs and claim nothing more; it stays up.
    Drain(Act),
    /// Let a drained node claim again.
    Undrain(Act),
    /// Give a node's jobs back to the queue now; one that lives stops them. Drain it first, or it claims on.
    Release(Act),
}

#[derive(Debug, Args)]
struct Act {
    /// The node's id.
    node: String,
    #[command(flatten)]
    acting: Acting,
}

/// Does it, and prints the nodes concerned as they are then.
///
/// # Errors
/// When the database cannot be reached, there is no such node, or it refuses.
pub async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let service = service(config).await?;
    // Who only looks needs no name.
    let anybody = Acting::default().requester()?;
    let nodes = match &arguments.command {
        Command::List => service.nodes(&anybody).await?,
        Command::Show { node } => {
            let found = service.node(&anybody, node).await?;
            vec![found.ok_or_else(|| {
                anyhow::anyhow!("there is no node with the id {node}: `runlane node list` shows them")
            })?]
        }
        Command::Drain(act) => vec![service.drain_node(&act.acting.requester()?, &act.node).await?],
        Command::Undrain(act) => vec![service.undrain_node(&act.acting.requester()?, &act.node).await?],
        Command::Release(act) => vec![service.release_node(&act.acting.requester()?, &act.node).await?],
    };
    let is_list = matches!(arguments.command, Command::List);
    if arguments.json {
        let all: Vec<Value> = nodes.iter().map(as_json).collect();
        let shown = if is_list { Value::Array(all) } else { all.into_iter().next().unwrap_or_default() };
        println!("{shown:#}");
    } else {
        println!("{}", table(&nodes));
    }
    Ok(())
}

fn as_json(node: &Node) -> Value {
    let slots: Vec<Value> = node
        .slots
        .iter()
        .map(|s| json!({ "type": s.kind.as_str(), "slots": s.slots, "active": s.active }))
        .collect();
    json!({
        "id": node.id.to_string(), "name": node.name, "version": node.version, "startedAt": node.started_at,
        "executes": node.executes, "slots": slots, "claims": node.claims, "heartbeatAgeMs": node.heartbeat_age_ms,
        "leaseUntil": node.lease_until, "failedRenewals": node.failed_renewals, "lateResults": node.late_results,
        "isDraining": node.is_draining, "state": node.state.as_str(),
    })
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "id",
        "name",
        "version",
        "state",
        "claims",
        "slots",
        "heartbeat",
        "failed renewals",
        "late results",
    ]);
    for node in nodes {
        let slots: Vec<String> =
            node.slots.iter().map(|s| format!("{} {}/{}", s.kind, s.active, s.slots)).collect();
        table.add_row([
            node.id.to_string(),
            node.name.clone(),
            node.version.clone(),
            node.state.to_string(),
            node.claims.to_string(),
            slots.join("\n"),
            format!("{} ms ago", node.heartbeat_age_ms),
            node.failed_renewals.to_string(),
            node.late_results.to_string(),
        ]);
    }
    table
}
