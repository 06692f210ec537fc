//! `runlane node`.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::acting::{Acting, service};
use super::output::{counted, lines, say, table};
use crate::config::Config;
use crate::domain::node::{Node, NodeState};
use crate::domain::staleness::Span;

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
        return say(&format!("{shown:#}"));
    }
    match nodes.as_slice() {
        [] => say("No node is registered: start `runlane serve` or `runlane work`."),
        [node] if !is_list => say(&one(node)),
        all => say(&list(all)),
    }
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

fn slots(node: &Node) -> Vec<String> {
    node.slots.iter().map(|s| format!("{} {}/{}", s.kind, s.active, s.slots)).collect()
}

fn list(nodes: &[Node]) -> String {
    let mut all = table(&[
        "id",
        "name",
        "state",
        "jobs",
        "slots in use",
        "heartbeat",
        "failed\nrenewals",
        "late\nresults",
    ]);
    for node in nodes {
        all.add_row([
            node.id.to_string(),
            node.name.clone(),
            node.state.to_string(),
            node.claims.to_string(),
            slots(node).join("\n"),
            format!("{} ago", Span(node.heartbeat_age_ms)),
            node.failed_renewals.to_string(),
            node.late_results.to_string(),
        ]);
    }
    lines(&all)
}

fn one(node: &Node) -> String {
    let shown = [
        ("node", format!("{} ({})", node.id, node.state)),
        ("name", node.name.clone()),
        ("version", node.version.clone()),
        ("started", node.started_at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ("jobs", format!("{} that it holds", counted(node.claims, "job"))),
        ("slots", if node.executes { slots(node).join(", ") } else { "none: it only serves".to_owned() }),
        ("heartbeat", format!("{} ago, {} failed", Span(node.heartbeat_age_ms), node.failed_renewals)),
        ("late", counted(node.late_results, "result")),
    ];
    let mut text: Vec<String> = shown.into_iter().map(|(name, value)| format!("{name:11}{value}")).collect();
    text.extend(next(node).map(|step| format!("next       {step}")));
    text.join("\n")
}

/// What there is to do about it.
fn next(node: &Node) -> Option<String> {
    let id = node.id;
    match (node.state, node.claims) {
        (NodeState::Active, _) => None,
        (NodeState::Draining, 0) => {
            Some(format!("it is idle: stop its process, or take it back with `runlane node undrain {id}`"))
        }
        (NodeState::Draining, 1) => {
            Some(format!("wait until its job has ended; `runlane node release {id}` gives it back at once"))
        }
        (NodeState::Draining, n) => Some(format!(
            "wait until its {n} jobs have ended; `runlane node release {id}` gives them back at once"
        )),
        (NodeState::Stopping, _) => Some("its process ends when its jobs have, or with its grace".to_owned()),
        (NodeState::Lost, _) => Some("the other nodes give its jobs back with their next sweep".to_owned()),
    }
}
