//! The JSON `job` messages of the worker protocol.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::KindPolicy;
use crate::domain::work::{AnalysisRecord, PreviousAnalysis, RunContext, Work};
use crate::executor::Job;

/// The significance level of an analysis's intervals.
const ALPHA: f64 = 0.05;
/// The resamples of an analysis's bootstrap.
const BOOTSTRAP: u32 = 10_000;

/// A job cannot be put into words: its rows do not fit its kind.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A probe without scenario or model.
    #[error("job {0} is a probe without a scenario or a model")]
    Incomplete(i64),
    /// Not JSON.
    #[error("a job message cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a, T: Serialize> {
    v: u8,
    r#type: &'static str,
    kind: &'static str,
    job_id: &'a str,
    run_id: uuid::Uuid,
    attempt: i32,
    deadline_ms: u64,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Probe<'a> {
    scenario: ScenarioBody<'a>,
    model: ModelBody<'a>,
    params: Params<'a>,
    scoring: &'a Value,
    pricing: &'a Value,
}

#[derive(Serialize)]
struct ScenarioBody<'a> {
    key: &'a str,
    preamble: &'a Value,
    prompt: &'a str,
    followups: &'a Value,
    dimensions: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    temperature: &'a Value,
    max_tokens: &'a Value,
    max_turns: &'a Value,
    seed: &'a Value,
}

#[derive(Serialize)]
struct ModelBody<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Analysis<'a> {
    input_hash: String,
    /// The code that computed the stored result of the same hash.
    previous_code: Option<&'a str>,
    options: Value,
    records: Vec<Record<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    scenario_key: &'a str,
    model_id: &'a str,
    dimensions: &'a Value,
    status: &'static str,
    error_code: Option<&'a str>,
    score: Option<i32>,
    usage: Option<&'a Value>,
    cost_usd: Option<&'a str>,
    latency_ms: Option<i32>,
}

/// What an analysis reads.
#[derive(Debug, Default)]
pub struct AnalysisInput {
    /// The run's probes.
    pub records: Vec<AnalysisRecord>,
    /// Its stored result, if it has one.
    pub previous: Option<PreviousAnalysis>,
}

/// The job for the executor. `input` is what an analysis reads.
///
/// # Errors
/// [`RequestError`] when the rows do not fit the kind.
pub fn job(
    work: &Work,
    context: &RunContext,
    input: &AnalysisInput,
    policy: KindPolicy,
) -> Result<Job, RequestError> {
    let job_id = work.claim.job_id.to_string();
    let deadline = deadline(work, context, policy);
    let (request, may_be_unchanged) = if work.kind.is_analysis() {
        let body = analysis(context, input)?;
        let may_be_unchanged = body.previous_code.is_some();
        (message(work, &job_id, deadline, body)?, may_be_unchanged)
    } else {
        (message(work, &job_id, deadline, probe(work, context)?)?, false)
    };
    Ok(Job {
        claim: work.claim,
        kind: work.kind,
        provider: provider(work),
        request,
        job_id,
        deadline,
        alone: work.is_suspect,
        may_be_unchanged,
    })
}

fn message<T: Serialize>(
    work: &Work,
    job_id: &str,
    deadline: Duration,
    body: T,
) -> Result<Vec<u8>, RequestError> {
    Ok(serde_json::to_vec(&Head {
        v: 1,
        r#type: "job",
        kind: work.kind.as_str(),
        job_id,
        run_id: work.run_id,
        attempt: work.claim.number,
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        body,
    })?)
}

/// The run's `timeoutSeconds` for probes, else the kind's.
fn deadline(work: &Work, context: &RunContext, policy: KindPolicy) -> Duration {
    let asked = context.params.get("timeoutSeconds").and_then(Value::as_u64).map(Duration::from_secs);
    asked.filter(|_| !work.kind.is_analysis()).unwrap_or(policy.timeout)
}

fn probe<'a>(work: &'a Work, context: &'a RunContext) -> Result<Probe<'a>, RequestError> {
    static NULL: Value = Value::Null;
    static NONE: Value = Value::Array(Vec::new());
    let (Some(scenario), Some(model)) = (&work.scenario, &work.model) else {
        return Err(RequestError::Incomplete(work.claim.job_id));
    };
    let of_definition = |name: &str| context.definition.get(name);
    let of_run = |name: &str| context.params.get(name).unwrap_or(&NULL);
    Ok(Probe {
        scenario: ScenarioBody {
            key: &scenario.key,
            preamble: of_definition("preamble").unwrap_or(&NULL),
            prompt: &scenario.prompt,
            followups: of_definition("followups").filter(|f| f.is_array()).unwrap_or(&NONE),
            dimensions: &scenario.dimensions,
        },
        model: ModelBody { id: model },
        params: Params {
            temperature: of_run("temperature"),
            max_tokens: of_run("maxTokens"),
            max_turns: of_run("maxTurns"),
            seed: of_run("seed"),
        },
        scoring: of_definition("scoring").unwrap_or(&NULL),
        pricing: work.pricing.as_ref().unwrap_or(&NULL),
    })
}

/// Whose model a probe calls.
pub fn provider(work: &Work) -> Option<String> {
    work.model.as_deref().and_then(|model| model.split_once('/')).map(|(name, _)| name.to_owned())
}

fn analysis<'a>(context: &RunContext, input: &'a AnalysisInput) -> Result<Analysis<'a>, RequestError> {
    let records: Vec<Record<'a>> = input
        .records
        .iter()
        .map(|r| Record {
            scenario_key: &r.scenario_key,
            model_id: &r.model_id,
            dimensions: &r.dimensions,
            status: r.status.as_str(),
            error_code: r.error_code.as_deref(),
            score: r.score,
            usage: r.usage.as_ref(),
            cost_usd: r.cost_usd.as_deref(),
            latency_ms: r.latency_ms,
        })
        .collect();
    let options = json!({ "seed": context.sample_seed, "alpha": ALPHA, "bootstrap": BOOTSTRAP });
    let input_hash = hex::encode(Sha256::digest(serde_json::to_vec(&(&options, &records))?));
    let same_input = input.previous.as_ref().filter(|previous| previous.input_hash == input_hash);
    let previous_code = same_input.map(|previous| previous.code.as_str());
    Ok(Analysis { input_hash, previous_code, options, records })
}
