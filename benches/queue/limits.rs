//! How much of what a provider allows 4 nodes use together, and how many of their calls it rejects.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::Node;
use crate::report::{Report, figure, heading};
use crate::scale::Scale;
use crate::stage::{Client, Database, LIVE, Stage, python, registered, serve, stop, until};

const NODES: usize = 4;
/// Each node's probes at once: together more than any ceiling here lets through.
const SLOTS: &str = "8";
/// Milliseconds that the provider takes for an answer: as quick as any, and as a short answer of a model takes.
const QUICK_MS: u64 = 200;
const USUAL_MS: u64 = 1_000;
/// The provider's ceilings.
const PER_MINUTE: u64 = 600;
const IN_FLIGHT: u64 = 8;

/// Measures a ceiling of calls a minute and one of calls at once that a limit names, and one that Runlane has to find.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let [per_minute, at_once] = scale.called;
    heading(&format!("{NODES} nodes call a provider with a ceiling"));
    let known = json!({ "requestsPerMinute": PER_MINUTE });
    let ceiling = json!({ "perMinute": PER_MINUTE, "inFlight": null });
    let used = one(stage, per_minute, QUICK_MS, &ceiling, Some(&known)).await?;
    let what = format!("{PER_MINUTE} calls a minute");
    let part = used.calls_s * 60.0 / PER_MINUTE as f64;
    used.print(&format!("{what}, known to Runlane"), part);
    used.hold(report, &what, part);

    let ceiling = json!({ "perMinute": null, "inFlight": IN_FLIGHT });
    let known = json!({ "inFlight": IN_FLIGHT });
    let busy = |used: &Used, call_ms: u64| used.calls_s * call_ms as f64 / 1e3 / IN_FLIGHT as f64;
    for call_ms in [QUICK_MS, USUAL_MS] {
        let used = one(stage, at_once, call_ms, &ceiling, Some(&known)).await?;
        let what = format!("{IN_FLIGHT} calls of {call_ms} ms at once");
        let part = busy(&used, call_ms);
        used.print(&format!("{what}, known to Runlane"), part);
        // What lies between two calls is the same for quick ones, and no fault of the limit.
        if call_ms == USUAL_MS {
            used.hold(report, &what, part);
        }
    }

    let used = one(stage, at_once, QUICK_MS, &ceiling, None).await?;
    let what = format!("{IN_FLIGHT} calls of {QUICK_MS} ms at once, which nobody has told Runlane");
    used.print(&what, busy(&used, QUICK_MS));
    Ok(())
}

/// What came of a ceiling.
struct Used {
    /// Calls that reached the provider.
    calls: u64,
    /// Accepted calls a second, from the first claim to the last.
    calls_s: f64,
    /// Of all calls.
    rejected: f64,
    /// From a claim to the end of the attempt in milliseconds, median, without the call.
    around_ms: f64,
}

impl Used {
    fn print(&self, what: &str, part: f64) {
        let text = format!(
            "{:.1} % used, {:.2} % of {} calls rejected; an attempt takes {:.0} ms around the call",
            part * 100.0,
            self.rejected * 100.0,
            self.calls,
            self.around_ms
        );
        figure(what, &text);
    }

    fn hold(&self, report: &mut Report, what: &str, part: f64) {
        report.goal_share_from(12, &format!("{what}: used by {NODES} nodes"), part, 0.9);
        report.goal_share_within(12, &format!("{what}: calls rejected"), self.rejected, 0.02);
    }
}

/// Runs so many probes against a provider with this ceiling, in a database and with nodes of their own.
async fn one(
    stage: &Stage,
    probes: u64,
    call_ms: u64,
    ceiling: &Value,
    limit: Option<&Value>,
) -> anyhow::Result<Used> {
    let provider = Provider::start()?;
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    let url = format!("{}/v1", provider.url);
    let settings = [
        ("OPENAI_API_KEY", "sk-a-key-of-the-benches"),
        ("OPENAI_BASE_URL", url.as_str()),
        ("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", SLOTS),
        ("RUNLANE_WARM_WORKERS", "1"),
    ];
    let nodes =
        (0..NODES).map(|_| Node::start(stage, &database, &settings)).collect::<Result<Vec<_>, _>>()?;
    registered(&database, i64::try_from(NODES)?).await?;
    warm_up(&database, &client).await?;
    provider.post("ceiling", ceiling).await?;
    provider.post("reset", &json!({})).await?;
    if let Some(ceilings) = limit {
        let mut variables = ceilings.clone();
        variables["name"] = json!("openai");
        let query = "mutation($name: String!, $inFlight: Int, $requestsPerMinute: Int) {
            setLimit(name: $name, inFlight: $inFlight, requestsPerMinute: $requestsPerMinute) { name } }";
        client.timed(query, &variables).await?;
    }
    let sizes = [usize::try_from(probes)?];
    let definition = client.definition("probes", &sizes).await?;
    let (_, run) = client.start_run(&definition, &[&format!("openai/rater?delayMs={call_ms}")]).await?;
    until(&database, "the probes", LIVE, |n| n == 0).await?;
    let (completed, seconds, attempt_ms): (i64, f64, f64) = sqlx::query_as(
        "select count(*) filter (where a.outcome = 'completed'),
                extract(epoch from max(a.started_at) - min(a.started_at))::float8,
                percentile_cont(0.5) within group (order by extract(epoch from a.ended_at - a.started_at) * 1000)
           from lane l join current_job j on j.lane_id = l.id join attempt a on a.job_id = j.id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(&run)
    .fetch_one(&database.db)
    .await?;
    let seen = provider.stats().await?;
    ensure!(
        completed == i64::try_from(probes)? && seen.accepted == probes,
        "{completed} completed, {} calls answered, instead of {probes}",
        seen.accepted
    );
    for node in nodes {
        node.stop()?;
    }
    stop(app).await;
    stage.drop(database).await?;
    let calls = seen.accepted + seen.rejected;
    Ok(Used {
        calls,
        calls_s: seen.accepted as f64 / seconds,
        rejected: seen.rejected as f64 / calls as f64,
        around_ms: attempt_ms - call_ms as f64,
    })
}

/// Has every node import the provider's client, which takes longer than all that is measured.
async fn warm_up(database: &Database, client: &Client) -> anyhow::Result<()> {
    const RUNS_MAX: usize = 20;
    let definition = client.definition("warm-up", &[NODES * 8]).await?;
    for _ in 0..RUNS_MAX {
        client.start_run(&definition, &["openai/rater?delayMs=500"]).await?;
        until(database, "the warm-up", LIVE, |n| n == 0).await?;
        let warm = database.number("select count(distinct node_id) from attempt").await?;
        if warm == i64::try_from(NODES)? {
            return Ok(());
        }
    }
    anyhow::bail!("not every node takes part")
}

/// The stub of a provider: `python/tests/stub_server.py`, which says what it can do. It ends with this value.
struct Provider {
    process: Child,
    url: String,
    http: reqwest::Client,
}

/// What the provider has seen.
#[derive(Deserialize)]
struct Seen {
    accepted: u64,
    rejected: u64,
}

impl Provider {
    fn start() -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tests/stub_server.py");
        let mut process =
            Command::new(python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        BufReader::new(process.stdout.take().context("it is piped")?).read_line(&mut port)?;
        let url = format!("http://127.0.0.1:{}", port.trim());
        Ok(Self { process, url, http: reqwest::Client::new() })
    }

    async fn post(&self, act: &str, body: &Value) -> anyhow::Result<()> {
        self.http.post(format!("{}/admin/{act}", self.url)).json(body).send().await?.error_for_status()?;
        Ok(())
    }

    async fn stats(&self) -> anyhow::Result<Seen> {
        Ok(self.http.get(format!("{}/admin/stats", self.url)).send().await?.json().await?)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the provider's stub cannot be ended: {error}");
        }
    }
}
