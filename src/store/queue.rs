//! The queue as a node sees it: claim, end attempts. What was claimed is put together by `work`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use super::crash::crash_point;
use super::work::SharedWork;
use super::{Result, Store};
use crate::domain::job::Claim;
use crate::domain::work::{
    AnalysisRecord, AttemptEnd, AttemptResult, PreviousAnalysis, ScenarioWork, TranscriptResult,
};
use crate::domain::{AttemptOutcome, JobKind, JobState};

/// What a claim brought, committed.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// What its jobs were taken with, if there were any (see [`Work::taken_in`](crate::domain::work::Work)).
    pub taken_in: Option<i64>,
    /// The first claims of probes.
    pub first: Vec<FirstClaim>,
    /// All others; what these jobs ask is still to be read.
    pub again: Vec<Claim>,
    /// What the jobs of lanes share that nobody had claimed from before.
    pub shared: Vec<SharedWork>,
    /// When slots stayed free: after how long something that waits may have become claimable. Zero when another node
    /// was faster; `None` when every slot was filled, or when nothing that waits has a known time.
    pub look_after: Option<Duration>,
}

impl Claimed {
    /// All claims.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        self.first.iter().map(|f| f.claim).chain(self.again.iter().copied()).collect()
    }
}

/// The first claim of a probe: nothing has happened to it yet, so this is all there is to know beside its lane.
#[derive(Debug, Clone)]
pub struct FirstClaim {
    /// Its number is 1.
    pub claim: Claim,
    /// The job's lane.
    pub lane_id: i64,
    /// What the job asks.
    pub scenario: Arc<ScenarioWork>,
}

/// Why a job that runs is to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Somebody asked to cancel it.
    Cancelled,
    /// The claim is no longer the node's, so its result would come too late.
    Gone,
}

impl Store {
    /// Claims up to the given number of jobs of each kind, probes only of providers that the node has
    /// registered with. Has committed when it returns.
    ///
    /// # Errors
    /// The database's; whether anything was claimed is then unknown until the node's claims are read back.
    pub async fn claim_jobs(&self, node: Uuid, slots: &[(JobKind, u32)]) -> Result<Claimed> {
        self.claim_jobs_without(node, slots, &[]).await
    }

    /// The same, but leaves the probes of these providers to others.
    ///
    /// # Errors
    /// As [`Store::claim_jobs`].
    pub async fn claim_jobs_without(
        &self,
        node: Uuid,
        slots: &[(JobKind, u32)],
        providers: &[String],
    ) -> Result<Claimed> {
        let kinds: Vec<String> = slots.iter().map(|(kind, _)| kind.as_str().to_owned()).collect();
        let counts: Vec<i32> = slots.iter().map(|&(_, n)| i32::try_from(n).unwrap_or(i32::MAX)).collect();
        crash_point("claim.before");
        let row =
            sqlx::query_file!("src/store/sql/claim_with_scenarios.sql", node, &kinds, &counts, providers)
                .fetch_one(&self.pool)
                .await?;
        let unreadable = |e: serde_json::Error| sqlx::Error::Decode(e.into());
        let texts = row.keys.unwrap_or_default().into_iter().zip(row.prompts.unwrap_or_default());
        let texts = texts.zip(row.dimensions.unwrap_or_default());
        let mut scenarios = HashMap::new();
        for (id, ((key, prompt), dimensions)) in row.scenarios.unwrap_or_default().into_iter().zip(texts) {
            let dimensions = RawValue::from_string(dimensions).map_err(unreadable)?;
            scenarios.insert(id, Arc::new(ScenarioWork { key, prompt, dimensions }));
        }
        let shared = row.shared.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)?;
        let again = row.again.unwrap_or_default().into_iter().zip(row.numbers.unwrap_or_default());
        let mut claimed = Claimed {
            taken_in: row.claim_id,
            first: Vec::new(),
            again: again.map(|(job_id, number)| Claim { job_id, number }).collect(),
            shared: shared.unwrap_or_default(),
            look_after: row.look_after_ms.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        };
        let first = row.first.unwrap_or_default().into_iter();
        let origins = row.lanes.unwrap_or_default().into_iter().zip(row.asked.unwrap_or_default());
        for (job_id, (lane_id, asked)) in first.zip(origins) {
            let claim = Claim { job_id, number: 1 };
            match scenarios.get(&asked) {
                Some(scenario) => {
                    claimed.first.push(FirstClaim { claim, lane_id, scenario: Arc::clone(scenario) });
                }
                // Its run was removed since.
                None => claimed.again.push(claim),
            }
        }
        if !claimed.first.is_empty() || !claimed.again.is_empty() {
            crash_point("claim.after");
        }
        Ok(claimed)
    }

    /// What a node holds according to the database: to find claims whose answer was lost.
    ///
    /// # Errors
    /// The database's.
    pub async fn claims_of(&self, node: Uuid) -> Result<Vec<Claim>> {
        let rows = sqlx::query!(
            r#"select a.id as "id!", a.claims as "claims!" from active_job a where a.node_id = $1"#,
            node
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| Claim { job_id: r.id, number: r.claims }).collect())
    }

    /// Every probe of a run, for its analysis.
    ///
    /// # Errors
    /// The database's.
    pub async fn analysis_records(&self, run: Uuid) -> Result<Vec<AnalysisRecord>> {
        let rows = sqlx::query!(
            r#"select s.key as "key!", l.model as "model!", s.dimensions as "dimensions!",
                      case when j.state = 'pending' and not l.is_open then 'cancelled'
                           else j.state::text end as "state!",
                      case when j.state = 'failed' then j.error_code end as error_code,
                      t.score as "score?", t.usage as "usage?", t.cost_usd::text as cost_usd,
                      t.latency_ms as "latency_ms?"
                 from lane l
                 join any_job j on j.lane_id = l.id
                 join scenario s on s.id = j.scenario_id
                 left join any_transcript t on t.job_id = j.id and t.lane_id = l.id
                where l.run_id = $1 and l.kind = 'probe:scenario'
                order by l.position, s.key collate "C""#,
            run
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                Ok(AnalysisRecord {
                    scenario_key: r.key,
                    model_id: r.model,
                    dimensions: r.dimensions,
                    status: r.state.parse::<JobState>()?.status(),
                    error_code: r.error_code,
                    score: r.score,
                    usage: r.usage,
                    cost_usd: r.cost_usd,
                    latency_ms: r.latency_ms,
                })
            })
            .collect()
    }

    /// What the stored result of an analysis was computed from and by; none where there is no result, or one whose
    /// worker does not say.
    ///
    /// # Errors
    /// The database's.
    pub async fn previous_analysis(&self, run: Uuid, kind: JobKind) -> Result<Option<PreviousAnalysis>> {
        let row = sqlx::query!(
            r#"select a.result ->> 'inputHash' as input_hash, a.result #>> '{methods,code}' as code
                 from analysis a where a.run_id = $1 and a.kind = $2::text::job_kind"#,
            run,
            kind.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.and_then(|r| Some(PreviousAnalysis { input_hash: r.input_hash?, code: r.code? })))
    }

    /// Ends attempts of one node, all in one transaction; returns the jobs whose claim was still the node's, with the
    /// state they have now. Results that come too late change nothing and are not among them. A lane of which
    /// `crash_hold_jobs` jobs crash alone in the same way is held.
    ///
    /// # Errors
    /// [`super::Error::Refused`] when the database refuses one of the results: none is stored then.
    pub async fn end_attempts(
        &self,
        node: Uuid,
        ends: &[AttemptEnd],
        crash_hold_jobs: i32,
    ) -> Result<Vec<(i64, JobState)>> {
        self.end_attempts_in(node, ends, None, crash_hold_jobs).await
    }

    /// The same for jobs that were taken with these claims (see [`Claimed::taken_in`]), so that not all of the node's are looked
    /// through; a job that was not is taken for one that comes too late.
    ///
    /// # Errors
    /// As [`Store::end_attempts`].
    pub async fn end_attempts_in(
        &self,
        node: Uuid,
        ends: &[AttemptEnd],
        taken_in: Option<&[i64]>,
        crash_hold_jobs: i32,
    ) -> Result<Vec<(i64, JobState)>> {
        let column = |f: fn(&AttemptEnd) -> Option<String>| ends.iter().map(f).collect::<Vec<_>>();
        let ids: Vec<i64> = ends.iter().map(|e| e.claim.job_id).collect();
        let numbers: Vec<i32> = ends.iter().map(|e| e.claim.number).collect();
        let all_completed = ends.iter().all(|e| e.outcome == AttemptOutcome::Completed);
        let outcomes: Option<Vec<&str>> =
            (!all_completed).then(|| ends.iter().map(|e| e.outcome.as_str()).collect());
        let delays: Vec<i64> =
            ends.iter().map(|e| i64::try_from(e.delay.as_millis()).unwrap_or(i64::MAX)).collect();
        let codes = column(|e| e.error.as_ref().map(|x| x.code.as_str().to_owned()));
        let messages = column(|e| e.error.as_ref().map(|x| storable(&x.message)));
        let retryable: Vec<Option<bool>> =
            ends.iter().map(|e| e.error.as_ref().map(|x| x.retryable)).collect();
        let stderr = column(|e| e.stderr_tail.as_deref().map(storable));
        let usage = json_unless_empty(ends, |e| e.usage.as_deref());
        let analyses = json_unless_empty(ends, |e| match &e.result {
            Some(AttemptResult::Analysis(raw)) => Some(raw),
            _ => None,
        });
        let transcripts: Vec<Option<&TranscriptResult>> = ends
            .iter()
            .map(|e| match &e.result {
                Some(AttemptResult::Transcript(transcript)) => Some(transcript),
                _ => None,
            })
            .collect();
        let turns: Vec<Option<&str>> = transcripts.iter().map(|t| t.map(|t| t.turns.get())).collect();
        let versions: Vec<Option<String>> =
            transcripts.iter().map(|t| t.and_then(|t| t.model_version.as_deref()).map(storable)).collect();
        let scores: Vec<Option<i32>> = transcripts.iter().map(|t| t.and_then(|t| t.score)).collect();
        let latencies: Vec<Option<i32>> = transcripts.iter().map(|t| t.map(|t| t.latency_ms)).collect();
        let suspect: Vec<bool> = ends.iter().map(|e| e.suspect).collect();
        let alone: Vec<bool> = ends.iter().map(|e| e.alone).collect();
        let fingerprints = column(|e| e.fingerprint.as_ref().map(|f| storable(f.as_str())));
        let holds: Vec<bool> = ends.iter().map(|e| e.holds).collect();
        let costs = column(|e| e.cost_usd.clone());
        crash_point("end.before");
        let rows = sqlx::query_file!(
            "src/store/sql/end_attempts.sql",
            node,
            &ids,
            &numbers,
            outcomes as Option<Vec<&str>>,
            unless_empty(&delays) as Option<&[i64]>,
            unless_empty(&codes) as Option<&[Option<String>]>,
            unless_empty(&messages) as Option<&[Option<String>]>,
            unless_empty(&retryable) as Option<&[Option<bool>]>,
            unless_empty(&stderr) as Option<&[Option<String>]>,
            usage as Option<Vec<Option<Json<&RawValue>>>>,
            analyses as Option<Vec<Option<Json<&RawValue>>>>,
            unless_empty(&suspect) as Option<&[bool]>,
            unless_empty(&alone) as Option<&[bool]>,
            unless_empty(&fingerprints) as Option<&[Option<String>]>,
            crash_hold_jobs,
            unless_empty(&holds) as Option<&[bool]>,
            unless_empty(&costs) as Option<&[Option<String>]>,
            unless_empty(&turns) as Option<&[Option<&str>]>,
            unless_empty(&versions) as Option<&[Option<String>]>,
            unless_empty(&scores) as Option<&[Option<i32>]>,
            unless_empty(&latencies) as Option<&[Option<i32>]>,
            taken_in
        )
        .fetch_all(&self.pool)
        .await?;
        crash_point("end.after");
        let mut ended = Vec::with_capacity(ends.len());
        for r in rows {
            let state = r.state.parse()?;
            ended.extend(r.jobs.into_iter().map(|job| (job, state)));
        }
        Ok(ended)
    }

    /// Which of these claims have ended on record, under this node: to tell a result that came too late from one whose
    /// answer was lost on the way back.
    ///
    /// # Errors
    /// The database's.
    pub async fn recorded(&self, node: Uuid, claims: &[Claim]) -> Result<Vec<Claim>> {
        let (ids, numbers): (Vec<i64>, Vec<i32>) = claims.iter().map(|c| (c.job_id, c.number)).unzip();
        let rows = sqlx::query!(
            r#"select a.job_id as "job_id!", a.number as "number!"
               from unnest($2::bigint[], $3::int[]) as c (job_id, number)
              cross join lateral (select a.* from any_attempt a where a.job_id = c.job_id offset 0) as a
              where a.node_id = $1 and a.number = c.number"#,
            node,
            &ids,
            &numbers
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| Claim { job_id: r.job_id, number: r.number }).collect())
    }

    /// Which of these claims of a node are to be stopped.
    ///
    /// # Errors
    /// The database's.
    pub async fn interrupted(&self, node: Uuid, claims: &[Claim]) -> Result<Vec<(Claim, Interruption)>> {
        let (ids, numbers): (Vec<i64>, Vec<i32>) = claims.iter().map(|c| (c.job_id, c.number)).unzip();
        let rows = sqlx::query!(
            r#"select c.job_id as "job_id!", c.number as "number!", h.is_held as "is_held!"
                 from unnest($2::bigint[], $3::int[]) as c (job_id, number)
                 left join active_job a on a.node_id = $1 and a.id = c.job_id and a.claims = c.number
                cross join lateral (select a.id is not null as is_held) as h
                where a.cancel_requested or not h.is_held"#,
            node,
            &ids,
            &numbers
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| {
                let why = if r.is_held { Interruption::Cancelled } else { Interruption::Gone };
                (Claim { job_id: r.job_id, number: r.number }, why)
            })
            .collect())
    }
}

/// PostgreSQL's text cannot hold NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The array, or null for one of nothing but nulls, false or 0: in most batches most are, and each element would be sent.
fn unless_empty<T: Default + PartialEq>(values: &[T]) -> Option<&[T]> {
    values.iter().any(|v| *v != T::default()).then_some(values)
}

/// The same for JSON, which cannot be compared.
fn json_unless_empty(
    ends: &[AttemptEnd],
    value: fn(&AttemptEnd) -> Option<&RawValue>,
) -> Option<Vec<Option<Json<&RawValue>>>> {
    let values: Vec<_> = ends.iter().map(|e| value(e).map(Json)).collect();
    values.iter().any(Option::is_some).then_some(values)
}
