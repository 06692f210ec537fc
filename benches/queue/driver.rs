//! A node without Python: the orchestrator's calls in its order, where every job completes at once.
//!
//! As in the orchestrator, one task claims and reads what it has claimed, and another connection puts the ends on record, or
//! two do where they are many at once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use runlane::domain::job::Claim;
use runlane::domain::work::{AttemptEnd, AttemptResult, TranscriptResult};
use runlane::domain::{AttemptOutcome, JobKind, JobState, ids};
use runlane::store::{Contexts, NewNode, PoolSettings, Store, connect};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stage::Database;

/// What a job that completes returns.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A conversation without turns.
    Nothing,
    /// What `mock/echo` answers to a short prompt.
    Echo,
    /// That the stored analysis holds.
    Unchanged,
}

const ECHO: &str = r#"[{"n":1,"label":"prompt","prompt":"How would you rate value 7 with value 3?","response":"How would you rate value 7 with value 3?","finishReason":"stop","usage":{"input":10,"output":10,"cacheRead":0,"cacheWrite":0,"reasoning":0},"latencyMs":0}]"#;
const ECHO_USAGE: &str = r#"{"input":10,"output":10,"cacheRead":0,"cacheWrite":0,"reasoning":0}"#;

/// From so many ends on a node begins to write them before the last are written: half of `RUNLANE_COMPLETION_BATCH_MAX`.
const MANY: u32 = 250;

/// A registered node.
pub struct Driver {
    store: Store,
    id: Uuid,
    batch: u32,
}

/// What a driver did, and where its time went.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    /// Jobs completed.
    pub jobs: usize,
    /// Claims that brought something.
    pub claims: u32,
    /// Time in `claim_jobs`.
    pub claiming: Duration,
    /// Time in `work`.
    pub reading: Duration,
    /// Time in `end_attempts`.
    pub ending: Duration,
}

/// What one claim brought.
pub struct Batch {
    pub claims: Vec<Claim>,
    taken_in: Option<i64>,
}

impl Driver {
    /// Registers a node that claims so many jobs at once.
    pub async fn register(database: &Database, batch: u32) -> anyhow::Result<Self> {
        let settings = PoolSettings {
            size: 4,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        };
        let store = Store::new(connect(&SecretString::from(database.url.clone()), "bench", settings)?);
        let node = NewNode {
            id: ids::new_id(),
            name: "bench".into(),
            version: "0".into(),
            executes: true,
            providers: vec!["mock".into()],
        };
        store.register_node(&node, Duration::from_secs(3_600)).await?;
        Ok(Self { store, id: node.id, batch })
    }

    /// The node's id.
    pub const fn node(&self) -> Uuid {
        self.id
    }

    /// Claims one batch of a kind.
    pub async fn claim_once(&self, kind: JobKind) -> anyhow::Result<Batch> {
        let claimed = self.store.claim_jobs(self.id, &[(kind, self.batch)]).await?;
        Ok(Batch { claims: claimed.claims(), taken_in: claimed.taken_in })
    }

    /// Completes what was claimed, with this answer each.
    pub async fn complete(&self, batch: Batch, answer: Answer) -> anyhow::Result<()> {
        self.end(&self.store, batch, answer).await
    }

    async fn end(&self, store: &Store, batch: Batch, answer: Answer) -> anyhow::Result<()> {
        let Batch { claims, taken_in } = batch;
        let ends = claims.into_iter().map(|claim| completed(claim, answer)).collect::<Result<Vec<_>, _>>()?;
        let ended = store
            .end_attempts_in(self.id, &ends, taken_in.as_ref().map(std::slice::from_ref), i32::MAX)
            .await?;
        ensure!(
            ended.len() == ends.len(),
            "{} of {} ends came too late",
            ends.len() - ended.len(),
            ends.len()
        );
        ensure!(ended.iter().all(|&(_, state)| state == JobState::Completed), "a job did not complete");
        Ok(())
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        self.store.close().await;
    }

    /// Claims and completes until nothing waits; with `enough`, until that is cancelled.
    pub async fn run(self, answer: Answer, enough: Option<CancellationToken>) -> anyhow::Result<Tally> {
        let (sender, receiver) = mpsc::channel(1);
        let receiver = Mutex::new(receiver);
        let second = async {
            if self.batch < MANY {
                return Ok(Tally::default());
            }
            self.write(&receiver, answer).await
        };
        let (claimed, first, second) =
            tokio::try_join!(self.claim(sender, enough), self.write(&receiver, answer), second)?;
        self.close().await;
        Ok(Tally { jobs: first.jobs + second.jobs, ending: first.ending + second.ending, ..claimed })
    }

    async fn claim(
        &self,
        ends: mpsc::Sender<Batch>,
        enough: Option<CancellationToken>,
    ) -> anyhow::Result<Tally> {
        // A connection of its own, as the orchestrator's claimer has.
        let store = self.store.on_kept_connections();
        let mut tally = Tally::default();
        let mut contexts = Contexts::default();
        let slots = [(JobKind::ProbeScenario, self.batch)];
        while !enough.as_ref().is_some_and(CancellationToken::is_cancelled) {
            let begun = Instant::now();
            let claimed = store.claim_jobs(self.id, &slots).await?;
            let read_from = Instant::now();
            let claims = claimed.claims();
            if claims.is_empty() {
                match &enough {
                    Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    None if claimed.look_after == Some(Duration::ZERO) => {}
                    None => return Ok(tally),
                }
                continue;
            }
            tally.claims += 1;
            tally.claiming += read_from - begun;
            contexts.learn(claimed.shared);
            let mut works = Vec::new();
            if !claimed.again.is_empty() {
                works = store.work(self.id, &claimed.again, &mut contexts).await?;
            }
            store.learn_of(&claimed.first, &mut contexts).await?;
            works.extend(contexts.first_work(claimed.first));
            tally.reading += read_from.elapsed();
            ensure!(works.len() == claims.len(), "{} payloads", works.len());
            let claims = works.into_iter().map(|(work, _)| work.claim).collect();
            ends.send(Batch { claims, taken_in: claimed.taken_in }).await?;
        }
        Ok(tally)
    }

    async fn write(&self, batches: &Mutex<mpsc::Receiver<Batch>>, answer: Answer) -> anyhow::Result<Tally> {
        let store = self.store.on_kept_connections();
        let mut tally = Tally::default();
        loop {
            let next = batches.lock().await.recv().await;
            let Some(batch) = next else { break };
            let jobs = batch.claims.len();
            let begun = Instant::now();
            self.end(&store, batch, answer).await?;
            tally.ending += begun.elapsed();
            tally.jobs += jobs;
        }
        Ok(tally)
    }
}

/// The end of a job that completed at once.
pub fn completed(claim: Claim, answer: Answer) -> serde_json::Result<AttemptEnd> {
    let raw = |text: &str| RawValue::from_string(text.to_owned());
    let transcript = |turns: &str| {
        let version = Some("mock-1".to_owned());
        let turns = raw(turns)?;
        Ok(AttemptResult::Transcript(TranscriptResult {
            turns,
            model_version: version,
            score: None,
            latency_ms: 0,
        }))
    };
    let (result, usage) = match answer {
        Answer::Nothing => (transcript("[]"), Some("{}")),
        Answer::Echo => (transcript(ECHO), Some(ECHO_USAGE)),
        Answer::Unchanged => (raw(r#"{"unchanged": true}"#).map(AttemptResult::Analysis), None),
    };
    Ok(AttemptEnd {
        holds: false,
        claim,
        outcome: AttemptOutcome::Completed,
        delay: Duration::ZERO,
        error: None,
        stderr_tail: None,
        usage: usage.map(raw).transpose()?,
        cost_usd: None,
        result: Some(result?),
        suspect: false,
        alone: false,
        fingerprint: None,
    })
}
