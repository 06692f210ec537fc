//! Dead letters.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, InputObject, Json, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::connection::{Connection, Edge, PageInfo};
use super::context::ContextExt;
use super::enums::TaskStatus;
use super::filters::id_or_nothing;
use crate::domain::dead_letter as domain;
use crate::domain::model_id::MODEL_ID_MAX_BYTES;
use crate::domain::page::Page;
use crate::domain::request::filter_text;
use crate::domain::validation::Length;
use crate::domain::{Checker, Limits};
use crate::service;

/// The most groups of one answer.
const GROUPS_MAX: i32 = 100;

/// Why a job gave up.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::DeadLetterReason")]
pub(super) enum DeadLetterReason {
    /// It waited or ran for longer than its staleness policy allows.
    StalenessTimeout,
    /// Its counted failures, or the time that it may wait for throttling, were used up.
    MaxRetriesExceeded,
    /// It waits for what waits for it.
    DependencyCycleDetected,
    /// Nothing could run it.
    WorkerUnavailable,
    /// A person gave it up.
    ManualDlq,
    /// What went wrong goes wrong again, or its run takes no retries.
    NonRetryable,
    /// It killed its worker again and again while it ran alone.
    CrashLoop,
}

/// What has become of a dead letter.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::DeadLetterStatus")]
pub(super) enum DeadLetterStatus {
    /// Nobody has dealt with it.
    Pending,
    /// Dealt with: by a person's decision, or because the job was let try again.
    ManuallyResolved,
    /// The job stays failed, and that is accepted.
    PermanentlyFailed,
    /// Nobody needs the result any more.
    Cancelled,
}

/// How to close a dead letter. The job stays as it is.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::Resolution")]
pub(super) enum DeadLetterResolution {
    /// Dealt with.
    ManuallyResolved,
    /// The job stays failed, and that is accepted.
    PermanentlyFailed,
    /// Nobody needs the result any more.
    Cancelled,
}

/// Why a dead letter is not redriven.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::RedriveObstacle")]
pub(super) enum RedriveObstacle {
    /// It is closed already.
    AlreadyResolved,
    /// Its job is no longer failed, or has been let try again since.
    Superseded,
    /// Its run was cancelled, which is for good: start a new run.
    RunCancelled,
}

/// A job that gave up, kept apart from the job with all that explains it.
#[derive(Clone)]
pub(super) struct DeadLetter(Arc<domain::DeadLetter>);

impl From<domain::DeadLetter> for DeadLetter {
    fn from(entry: domain::DeadLetter) -> Self {
        Self(Arc::new(entry))
    }
}

/// A job that gave up, kept apart from the job with all that explains it.
#[Object]
impl DeadLetter {
    /// Of this dead letter.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The job that gave up.
    async fn job_id(&self) -> ID {
        self.0.job_id.into()
    }

    /// The job's run.
    async fn run_id(&self) -> ID {
        self.0.run_id.into()
    }

    /// The run's definition.
    async fn definition_id(&self) -> ID {
        self.0.definition_id.into()
    }

    /// What the job does: `probe:scenario`, `analyze:basic` or `analyze:deep`.
    #[graphql(name = "type")]
    async fn kind(&self) -> &str {
        self.0.kind.as_str()
    }

    /// Of a probe: the model.
    async fn model_id(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    /// Why the job gave up.
    async fn reason(&self) -> DeadLetterReason {
        self.0.reason.into()
    }

    /// What has become of it.
    async fn status(&self) -> DeadLetterStatus {
        self.0.status.into()
    }

    /// What went wrong last, for programs.
    async fn error_code(&self) -> &str {
        &self.0.error_code
    }

    /// What went wrong last, for people.
    async fn error_message(&self) -> &str {
        &self.0.error_message
    }

    /// The same for what looks the same: filter by it to deal with all of them at once.
    async fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// The status from which the job gave up: RUNNING, or PENDING for one that never got its turn.
    async fn original_status(&self) -> TaskStatus {
        self.0.original_state.status().into()
    }

    /// How often the job had been let try again by hand before it gave up.
    async fn epoch(&self) -> i32 {
        self.0.epoch
    }

    /// The job and what it was asked, as they were: `{job, scenario, model, params, run}`.
    async fn snapshot(&self) -> Json<&Value> {
        Json(&self.0.snapshot)
    }

    /// All attempts of the job until then, oldest first, as they were; with the end of stderr.
    async fn attempts(&self) -> Json<&Value> {
        Json(&self.0.attempts)
    }

    /// Notes for programs: an object.
    async fn metadata(&self) -> Json<&Value> {
        Json(&self.0.metadata)
    }

    /// When the job gave up.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it was closed; null while it is PENDING.
    async fn resolved_at(&self) -> Option<DateTime<Utc>> {
        self.0.resolved_at
    }

    /// Who closed it.
    async fn resolved_by(&self) -> Option<&str> {
        self.0.resolved_by.as_deref()
    }

    /// What that person noted.
    async fn notes(&self) -> Option<&str> {
        self.0.notes.as_deref()
    }

    /// When the job was let try again, if that is what closed it.
    async fn redriven_at(&self) -> Option<DateTime<Utc>> {
        self.0.redriven_at
    }
}

/// Which dead letters: all fields that are given must hold.
#[derive(InputObject, Debug, Default)]
pub(super) struct DeadLetterFilter {
    /// Of this run.
    run_id: Option<ID>,
    /// For one of these reasons; none for an empty list.
    reason: Option<Vec<DeadLetterReason>>,
    /// In one of these statuses; none for an empty list.
    status: Option<Vec<DeadLetterStatus>>,
    /// That look like this.
    fingerprint: Option<String>,
    /// Whose last error was this, such as `network`.
    error_code: Option<String>,
    /// Of this model.
    model_id: Option<String>,
    /// Of runs of this definition.
    definition_id: Option<ID>,
    /// Made at this time or later.
    created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    created_before: Option<DateTime<Utc>>,
}

impl DeadLetterFilter {
    /// Checks the filter.
    ///
    /// # Errors
    /// VALIDATION_ERROR for texts that nothing can equal.
    pub(super) fn check(self, limits: &Limits) -> service::Result<domain::DeadLetterFilter> {
        let mut checker = Checker::new("filter", limits.mistakes_max);
        let short = Length::Chars(limits.name_max_chars);
        filter_text(&mut checker, "fingerprint", self.fingerprint.as_deref(), short);
        filter_text(&mut checker, "errorCode", self.error_code.as_deref(), short);
        filter_text(&mut checker, "modelId", self.model_id.as_deref(), Length::Bytes(MODEL_ID_MAX_BYTES));
        checker.finish()?;
        Ok(domain::DeadLetterFilter {
            run_id: self.run_id.as_ref().map(id_or_nothing),
            reasons: self.reason.map(|list| list.into_iter().map(Into::into).collect()),
            statuses: self.status.map(|list| list.into_iter().map(Into::into).collect()),
            fingerprint: self.fingerprint,
            error_code: self.error_code,
            model: self.model_id,
            definition_id: self.definition_id.as_ref().map(id_or_nothing),
            created_after: self.created_after,
            created_before: self.created_before,
            visible_to: None,
        })
    }
}

/// A page of dead letters, and what all that pass the filter have in common.
pub(super) struct DeadLetterConnection {
    page: Connection<DeadLetter>,
    filter: domain::DeadLetterFilter,
}

impl DeadLetterConnection {
    pub(super) fn new(page: Page<domain::DeadLetter>, filter: domain::DeadLetterFilter) -> Self {
        Self { page: Connection::new(page, DeadLetter::from), filter }
    }
}

/// A page of dead letters, and what all that pass the filter have in common.
#[Object]
impl DeadLetterConnection {
    /// The dead letters, each with its cursor.
    async fn edges(&self) -> &[Edge<DeadLetter>] {
        &self.page.edges
    }

    /// The dead letters alone.
    async fn nodes(&self) -> &[DeadLetter] {
        &self.page.nodes
    }

    /// Where the page lies in the list.
    async fn page_info(&self) -> &PageInfo {
        &self.page.page_info
    }

    /// How long the whole list is; null when it is too long to be counted.
    async fn total_count(&self) -> Option<i64> {
        self.page.total_count
    }

    /// How many of the whole list there are for each reason, most first.
    async fn by_reason(&self, ctx: &Context<'_>) -> Result<Vec<DeadLettersByReason>> {
        let counts = ctx.service()?.dead_letters_by_reason(ctx.requester()?, &self.filter).await?;
        Ok(counts
            .into_iter()
            .map(|(reason, count)| DeadLettersByReason { reason: reason.into(), count })
            .collect())
    }

    /// How many of the whole list look the same, most first: the few causes behind many failures.
    #[graphql(complexity = "10 * child_complexity")]
    async fn by_fingerprint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many groups; 1 to 100.", default = 10)] first: i32,
    ) -> Result<Vec<DeadLettersByFingerprint>> {
        if !(1..=GROUPS_MAX).contains(&first) {
            let message = format!("is {first}, which is out of range: give a number from 1 to {GROUPS_MAX}");
            let error = crate::domain::ValidationErrors::one("first", message);
            return Err(service::Error::from(error).into());
        }
        let service = ctx.service()?;
        let groups =
            service.dead_letters_by_fingerprint(ctx.requester()?, &self.filter, first.into()).await?;
        Ok(groups.into_iter().map(DeadLettersByFingerprint::from).collect())
    }
}

/// How many dead letters have one reason.
#[derive(SimpleObject)]
pub(super) struct DeadLettersByReason {
    /// Why the jobs gave up.
    reason: DeadLetterReason,
    /// How many.
    count: i64,
}

/// How many dead letters look the same.
#[derive(SimpleObject)]
pub(super) struct DeadLettersByFingerprint {
    /// What they have in common.
    fingerprint: String,
    /// How many.
    count: i64,
    /// The newest of them.
    example_id: ID,
    /// Its error, for programs.
    error_code: String,
    /// Its error, for people.
    example_message: String,
    /// When the first of them was made.
    oldest: DateTime<Utc>,
    /// When the last of them was made.
    newest: DateTime<Utc>,
}

impl From<domain::Lookalikes> for DeadLettersByFingerprint {
    fn from(group: domain::Lookalikes) -> Self {
        Self {
            fingerprint: group.fingerprint,
            count: group.count,
            example_id: group.example_id.into(),
            error_code: group.error_code,
            example_message: group.example_message,
            oldest: group.oldest,
            newest: group.newest,
        }
    }
}

/// What a redrive did, or would do.
#[derive(SimpleObject)]
pub(super) struct RedriveReport {
    /// Dead letters that the filter names.
    matched: i64,
    /// Jobs that wait again.
    redriven: i64,
    /// The others, by what stands against them.
    skipped: Vec<RedriveSkipped>,
    /// The runs of those jobs; finished ones are reopened.
    runs: Vec<ID>,
    /// When the last of those jobs is due; null without jobs.
    finishes_at: Option<DateTime<Utc>>,
    /// Whether nothing was changed.
    dry_run: bool,
}

/// How many dead letters are skipped for one reason.
#[derive(SimpleObject)]
pub(super) struct RedriveSkipped {
    /// What stands against them.
    why: RedriveObstacle,
    /// How many.
    count: i64,
}

impl RedriveReport {
    pub(super) fn new(done: domain::Redriven, dry_run: bool) -> Self {
        let skipped = done.skipped.into_iter();
        Self {
            matched: done.matched,
            redriven: done.redriven,
            skipped: skipped.map(|(why, count)| RedriveSkipped { why: why.into(), count }).collect(),
            runs: done.runs.into_iter().map(ID::from).collect(),
            finishes_at: done.finishes_at,
            dry_run,
        }
    }
}
