//! `runlane demo`: the whole main job, through the API as any client would.

mod client;
mod report;
mod study;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::local::Local;
use super::run::Signals;
use crate::app::authority;
use crate::config::Config;
use crate::domain::Role;
use crate::domain::clock::Clock;
use client::Client;

/// How often the run's progress is asked for.
const POLL: Duration = Duration::from_millis(100);
/// How long the token of the demo is good.
const TOKEN_TTL: Duration = Duration::from_secs(3_600);

const CREATE: &str = "mutation($input: CreateDefinitionInput!) {
  createDefinition(input: $input) { id name version scenarioCount } }";
const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) { id progress { total } } }";
const PROGRESS: &str = "query($id: ID!) { run(id: $id) {
  status estimatedTimeRemaining progress { total completed failed cancelled active } } }";
const ANALYSE: &str = "mutation($id: ID!) { startAnalysis(runId: $id, kind: DEEP) { id } }";
const ANALYSES: &str = "query($id: ID!) { run(id: $id) {
  analyses { kind status result coverage warnings error { code message } } } }";

/// Runs the demo.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(mut config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let models = study::models(config.demo_models.as_deref(), &config.providers)?;
    let playground = format!("http://{}/graphql", config.listen);
    // Any free port: the demo must not mind what else serves here.
    config.listen.set_port(0);
    let began = Instant::now();
    match config.database_url {
        Some(_) => println!("Starting a node on the database of DATABASE_URL …"),
        None => println!("Starting a private PostgreSQL and a node in {} …", config.data_dir.display()),
    }
    let mocks = models.iter().all(|model| model.starts_with("mock/"));
    let mut signals = Signals::listen()?;
    let start = Local::start(config, Arc::clone(&clock));
    let Some(local) = signals.unless_stopped(start).await? else { bail!("interrupted before it was ready") };
    println!("Ready after {}.\n", seconds(began));
    let result = tokio::select! {
        result = study(&local, clock, &models) => result,
        () = signals.come() => Err(anyhow!("interrupted; what was finished is kept")),
    };
    local.stop().await?;
    result?;
    println!(
        "
The demo took {}.{}

`make dev` keeps serving, with GraphiQL, the playground, at
  {playground}
quickstart.md goes on from there.",
        seconds(began),
        if mocks { " It used mock models, which need no network." } else { "" }
    );
    Ok(())
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

async fn study(local: &Local, clock: Arc<dyn Clock>, models: &[String]) -> anyhow::Result<()> {
    let address = local.app.address.context("the node serves")?;
    let token = authority(&local.config, clock)?.issue("demo", Role::User, TOKEN_TTL)?;
    let client = Client::new(address, token);

    let definition = client.ask(CREATE, json!({ "input": study::definition() })).await?;
    let definition = &definition["createDefinition"];
    println!(
        "Definition “{}”, version {}: {} scenarios.",
        text(&definition["name"]),
        definition["version"],
        definition["scenarioCount"]
    );
    let run = client.ask(START, json!({ "input": study::run(&definition["id"], models) })).await?;
    let run = &run["startRun"];
    println!("Run {}: {} probes over {} models.\n", text(&run["id"]), run["progress"]["total"], models.len());

    watch(&client, &run["id"]).await?;
    let basic = analysis(&client, &run["id"], "BASIC").await?;
    client.ask(ANALYSE, json!({ "id": run["id"] })).await?;
    let deep = analysis(&client, &run["id"], "DEEP").await?;
    report::print(&basic, &deep);
    Ok(())
}

/// Shows the run's progress until every probe is finished.
async fn watch(client: &Client, run: &Value) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {pos}/{len} probes, {msg}")?
        .progress_chars("=> ");
    let bar = ProgressBar::new(0).with_style(style);
    loop {
        let answer = client.ask(PROGRESS, json!({ "id": run })).await?;
        let (status, progress) = (text(&answer["run"]["status"]), &answer["run"]["progress"]);
        let count = |name: &str| progress[name].as_u64().unwrap_or_default();
        bar.set_length(count("total"));
        bar.set_position(count("completed") + count("failed") + count("cancelled"));
        bar.set_message(match answer["run"]["estimatedTimeRemaining"].as_u64() {
            Some(seconds) => format!("{} active, about {seconds} s left", count("active")),
            None => format!("{} active", count("active")),
        });
        match status {
            "COMPLETED" => {
                bar.finish_with_message(format!(
                    "{} completed, {} failed",
                    count("completed"),
                    count("failed")
                ));
                if bar.is_hidden() {
                    println!("{} of {} probes completed.", count("completed"), count("total"));
                }
                return Ok(());
            }
            "PENDING" | "RUNNING" => tokio::time::sleep(POLL).await,
            other => bail!("the run is {other}, which nobody asked for"),
        }
    }
}

/// Waits for an analysis and gives its result.
async fn analysis(client: &Client, run: &Value, kind: &str) -> anyhow::Result<Value> {
    let spinner = ProgressBar::new_spinner().with_message(format!("{} analysis", kind.to_lowercase()));
    spinner.enable_steady_tick(POLL);
    loop {
        let answer = client.ask(ANALYSES, json!({ "id": run })).await?;
        let analyses = answer["run"]["analyses"].as_array().cloned().unwrap_or_default();
        let found = analyses.into_iter().find(|a| a["kind"] == kind);
        match found.as_ref().map(|a| text(&a["status"])) {
            Some("COMPLETED") => {
                spinner.finish_and_clear();
                return found.map(|a| a["result"].clone()).context("the analysis was just there");
            }
            Some("FAILED" | "CANCELLED") => {
                bail!("the {kind} analysis failed: {}", found.map_or(Value::Null, |a| a["error"].clone()))
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
