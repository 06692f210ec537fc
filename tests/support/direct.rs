//! The queue without nodes: the store's own functions on a database of their own, for tests that decide themselves what
//! is claimed when, and how it ends.

use std::time::Duration;

use runlane::domain::job::Claim;
use runlane::domain::verify::{Expectations, Violation};
use runlane::domain::work::{AttemptEnd, AttemptError, AttemptResult, TranscriptResult};
use runlane::domain::{AttemptOutcome, ErrorCode, JobKind, JobState, ids};
use runlane::store::{
    DefinitionInsert, Inserted, JobChange, NewNode, RunChange, RunInsert, ScenarioColumns, Store,
};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;
use uuid::Uuid;

/// What a rescue must have happened by. Short: the tests' PostgreSQL has just started, and nothing counts before that.
const RESCUED_WITHIN: Duration = Duration::from_millis(1);

/// A database and the store on it.
pub struct Direct {
    /// Connections of the test itself.
    pub db: PgPool,
    /// What the program uses.
    pub store: Store,
}

impl Direct {
    /// On a migrated database.
    pub async fn on(url: &str) -> Self {
        let db = PgPool::connect(url).await.expect("the test's database answers");
        Self { store: Store::new(db.clone()), db }
    }

    /// Registers a node with a lease of ten minutes.
    pub async fn node(&self) -> Uuid {
        let id = ids::new_id();
        let node = NewNode {
            id,
            name: "test".into(),
            version: "0".into(),
            executes: true,
            providers: vec!["mock".into()],
        };
        self.store.register_node(&node, Duration::from_secs(600)).await.unwrap();
        id
    }

    /// A definition with `n` scenarios.
    pub async fn definition(&self, n: usize) -> Uuid {
        let id = ids::new_id();
        let keys: Vec<String> = (0..n).map(|i| format!("s{i:03}")).collect();
        let definition = DefinitionInsert {
            id,
            name: format!("definition {id}"),
            content: json!({}),
            created_by: "ada".into(),
            scenarios: ScenarioColumns {
                names: keys.clone(),
                prompts: keys.clone(),
                dimensions: vec!["{}".into(); n],
                keys,
            },
        };
        self.store.insert_definition(definition).await.unwrap();
        id
    }

    /// Starts a run of all scenarios.
    pub async fn start(&self, definition: Uuid, models: &[&str], max_concurrency: Option<i32>) -> Uuid {
        let id = ids::new_id();
        let run = RunInsert {
            expected_output_tokens: 500,
            id,
            batch_id: ids::new_id(),
            request_id: "test".into(),
            definition_id: definition,
            definition_snapshot: json!({}),
            name: None,
            experiment_id: None,
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            pricing: Vec::new(),
            estimate_usd: Vec::new(),
            expected_ms: None,
            expected_usd: None,
            budget: None,
            failures: None,
            params: json!({}),
            priority: 5,
            max_concurrency,
            sample_percentage: 100,
            sample_seed: 1,
            sample_algorithm: "chacha-rank/v1",
            idempotency_key: None,
            input_hash: Vec::new(),
            metadata: None,
            created_by: "ada".into(),
            created_group: None,
            scenario_ids: None,
        };
        assert_eq!(self.store.insert_run(run, 0, 0, i64::MAX).await.unwrap(), Inserted::Created);
        id
    }

    /// Claims up to `n` jobs of a kind.
    pub async fn claim(&self, node: Uuid, kind: JobKind, n: u32) -> Vec<Claim> {
        self.store.claim_jobs(node, &[(kind, n)]).await.unwrap().claims()
    }

    /// Ends a claim; the job's state, unless it came too late.
    pub async fn end(&self, node: Uuid, end: AttemptEnd) -> Option<JobState> {
        let ended = self.store.end_attempts(node, &[end], i32::MAX).await.unwrap();
        ended.first().map(|&(_, state)| state)
    }

    /// Does this to a run, whatever its status allows.
    pub async fn force(&self, run: Uuid, change: RunChange) {
        let done = self.store.control_run(run, change, |_| Ok::<(), ()>(())).await.unwrap();
        assert_eq!(done, Some(Ok(())));
    }

    /// Retries the failed probes of a run, whatever its status allows.
    pub async fn force_retry(&self, run: Uuid) {
        let done = self.store.retry_failed_jobs(run, 100, |_| Ok::<(), ()>(())).await.unwrap();
        assert_eq!(done, Some(Ok(())));
    }

    /// Does this to a job, whatever its state allows.
    pub async fn force_job(&self, job: i64, change: JobChange) {
        let done = self.store.control_job(job, change, |_| Ok::<(), ()>(())).await.unwrap();
        assert_eq!(done, Some(Ok(())));
    }

    /// Everything that the invariant checker finds.
    pub async fn violations(&self, quiescent: bool, runs: &[Uuid]) -> Vec<Violation> {
        let expected = Expectations { runs: runs.to_vec(), quiescent, rescued_within: RESCUED_WITHIN };
        let mut found = Vec::new();
        self.store.verify(&expected, |violation| found.push(violation)).await.unwrap();
        found
    }
}

/// An end of this outcome, with what belongs to it; nothing waits.
pub fn end(claim: Claim, kind: JobKind, outcome: AttemptOutcome) -> AttemptEnd {
    let error = |code| Some(AttemptError { code, message: "on purpose".into(), retryable: true });
    let raw = |value: serde_json::Value| RawValue::from_string(value.to_string()).expect("it is JSON");
    let is_transcript = outcome == AttemptOutcome::Completed && !kind.is_analysis();
    let result = if kind.is_analysis() {
        AttemptResult::Analysis(raw(
            json!({ "coverage": { "expected": 1, "used": 1, "failed": 0 }, "warnings": [] }),
        ))
    } else {
        let turns = raw(json!([{ "n": 1, "latencyMs": 5 }]));
        AttemptResult::Transcript(TranscriptResult {
            turns,
            model_version: None,
            score: Some(3),
            latency_ms: 5,
        })
    };
    AttemptEnd {
        holds: false,
        claim,
        outcome,
        delay: Duration::ZERO,
        error: match outcome {
            AttemptOutcome::Completed | AttemptOutcome::Released => None,
            AttemptOutcome::Failed | AttemptOutcome::Retried => error(ErrorCode::Network),
            AttemptOutcome::Throttled => error(ErrorCode::RateLimit),
            AttemptOutcome::Lost => error(ErrorCode::WorkerCrash),
            AttemptOutcome::Cancelled => error(ErrorCode::Cancelled),
        },
        stderr_tail: None,
        usage: is_transcript.then(|| raw(json!({}))),
        cost_usd: is_transcript.then(|| "0.001".to_owned()),
        result: (outcome == AttemptOutcome::Completed).then_some(result),
        suspect: false,
        alone: false,
        fingerprint: None,
    }
}
