//! Loads what many objects of one answer need, for all of them at once.
//!
//! The loaders live as long as one request: a longer life would mix what different people may see.

use std::collections::{BTreeMap, HashMap};

use async_graphql::Error;
use async_graphql::dataloader::{DataLoader, Loader};
use uuid::Uuid;

use crate::domain::dead_letter::DeadLetter;
use crate::domain::staleness::StaleRun;
use crate::domain::view;
use crate::domain::waiting::Waiting;
use crate::service::Service;

/// The loaders of one request.
pub(super) fn for_request(service: &Service) -> DataLoader<Batches> {
    DataLoader::new(Batches(service.clone()), tokio::spawn)
}

/// Loads by the keys below.
pub(super) struct Batches(Service);

/// A definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DefinitionId(pub(super) Uuid);

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScenarioId(pub(super) i64);

/// The attempts of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttemptsOf(pub(super) i64);

/// The dead letters of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DeadLettersOf(pub(super) i64);

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WaitingOf(pub(super) i64);

/// What a run evaluates, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ContentOf(pub(super) Uuid);

/// How fast a run moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PaceOf(pub(super) Uuid);

/// Whether a run takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StalenessOf(pub(super) Uuid);

/// The analyses of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AnalysesOf(pub(super) Uuid);

/// What ended last in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RecentTasksOf {
    pub(super) run: Uuid,
    pub(super) limit: i64,
}

impl Loader<DefinitionId> for Batches {
    type Value = view::Definition;
    type Error = Error;
    async fn load(&self, keys: &[DefinitionId]) -> Result<HashMap<DefinitionId, Self::Value>, Error> {
        let ids: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
        let found = self.0.definitions_by_id(&ids).await?;
        Ok(found.into_iter().map(|d| (DefinitionId(d.id), d)).collect())
    }
}

impl Loader<ScenarioId> for Batches {
    type Value = view::Scenario;
    type Error = Error;
    async fn load(&self, keys: &[ScenarioId]) -> Result<HashMap<ScenarioId, Self::Value>, Error> {
        let ids: Vec<i64> = keys.iter().map(|k| k.0).collect();
        let found = self.0.scenarios_by_id(&ids).await?;
        Ok(found.into_iter().map(|s| (ScenarioId(s.id), s)).collect())
    }
}

impl Loader<AttemptsOf> for Batches {
    type Value = Vec<view::Attempt>;
    type Error = Error;
    async fn load(&self, keys: &[AttemptsOf]) -> Result<HashMap<AttemptsOf, Self::Value>, Error> {
        let jobs: Vec<i64> = keys.iter().map(|k| k.0).collect();
        let found = self.0.attempts(&jobs).await?;
        Ok(found.into_iter().map(|(job, attempts)| (AttemptsOf(job), attempts)).collect())
    }
}

impl Loader<DeadLettersOf> for Batches {
    type Value = Vec<DeadLetter>;
    type Error = Error;
    async fn load(&self, keys: &[DeadLettersOf]) -> Result<HashMap<DeadLettersOf, Self::Value>, Error> {
        let jobs: Vec<i64> = keys.iter().map(|k| k.0).collect();
        let found = self.0.dead_letters_of(&jobs).await?;
        Ok(found.into_iter().map(|(job, entries)| (DeadLettersOf(job), entries)).collect())
    }
}

impl Loader<WaitingOf> for Batches {
    type Value = Waiting;
    type Error = Error;
    async fn load(&self, keys: &[WaitingOf]) -> Result<HashMap<WaitingOf, Self::Value>, Error> {
        let jobs: Vec<i64> = keys.iter().map(|k| k.0).collect();
        let found = self.0.waiting_reasons(&jobs).await?;
        Ok(found.into_iter().map(|(job, reason)| (WaitingOf(job), reason)).collect())
    }
}

impl Loader<ContentOf> for Batches {
    type Value = view::RunContent;
    type Error = Error;
    async fn load(&self, keys: &[ContentOf]) -> Result<HashMap<ContentOf, Self::Value>, Error> {
        let runs: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
        let found = self.0.run_contents(&runs).await?;
        Ok(found.into_iter().map(|(run, content)| (ContentOf(run), content)).collect())
    }
}

impl Loader<PaceOf> for Batches {
    type Value = view::Pace;
    type Error = Error;
    async fn load(&self, keys: &[PaceOf]) -> Result<HashMap<PaceOf, Self::Value>, Error> {
        let runs: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
        let found = self.0.paces(&runs).await?;
        Ok(found.into_iter().map(|(run, pace)| (PaceOf(run), pace)).collect())
    }
}

impl Loader<StalenessOf> for Batches {
    type Value = StaleRun;
    type Error = Error;
    async fn load(&self, keys: &[StalenessOf]) -> Result<HashMap<StalenessOf, Self::Value>, Error> {
        let runs: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
        let found = self.0.staleness_of_runs(&runs).await?;
        Ok(found.into_iter().map(|(run, stale)| (StalenessOf(run), stale)).collect())
    }
}

impl Loader<AnalysesOf> for Batches {
    type Value = Vec<view::Analysis>;
    type Error = Error;
    async fn load(&self, keys: &[AnalysesOf]) -> Result<HashMap<AnalysesOf, Self::Value>, Error> {
        let runs: Vec<Uuid> = keys.iter().map(|k| k.0).collect();
        let found = self.0.analyses(&runs).await?;
        Ok(found.into_iter().map(|(run, analyses)| (AnalysesOf(run), analyses)).collect())
    }
}

impl Loader<RecentTasksOf> for Batches {
    type Value = Vec<view::TaskResult>;
    type Error = Error;
    async fn load(&self, keys: &[RecentTasksOf]) -> Result<HashMap<RecentTasksOf, Self::Value>, Error> {
        let mut by_limit: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
        for key in keys {
            by_limit.entry(key.limit).or_default().push(key.run);
        }
        let mut tasks = HashMap::new();
        // One statement for each limit that the request names: nearly always one.
        for (limit, runs) in by_limit {
            let found = self.0.recent_tasks(&runs, limit).await?;
            tasks.extend(found.into_iter().map(|(run, tasks)| (RecentTasksOf { run, limit }, tasks)));
        }
        Ok(tasks)
    }
}
