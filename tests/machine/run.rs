//! Runs, lanes and jobs of the reference.

use std::collections::BTreeMap;

use runlane::domain::run::Permission;
use runlane::domain::{AttemptOutcome, CancelMode, JobKind, JobState, RunStatus};

use super::seen::kind_of;

#[derive(Debug, Clone)]
pub struct Job {
    /// As a client sees it: what waits in a closed lane is cancelled.
    pub state: JobState,
    pub claims: i32,
    pub epoch: i32,
    pub epoch_claims: i32,
    pub counts: [i32; 4],
    pub suspect: bool,
    pub cancel_requested: bool,
    pub outcomes: Vec<AttemptOutcome>,
    /// Whether its time to run has come.
    pub due: bool,
    pub node: Option<usize>,
    pub claimed_at: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Lane {
    pub paused: bool,
    pub closed: bool,
    pub changed_at: u64,
}

#[derive(Debug, Clone)]
pub struct Run {
    pub status: RunStatus,
    pub priority: i16,
    pub ceiling: Option<i32>,
    pub ended_at: Option<u64>,
    pub lanes: BTreeMap<String, Lane>,
    pub jobs: BTreeMap<(String, String), Job>,
}

pub fn new_job() -> Job {
    Job {
        state: JobState::Pending,
        claims: 0,
        epoch: 0,
        epoch_claims: 0,
        counts: [0; 4],
        suspect: false,
        cancel_requested: false,
        outcomes: Vec::new(),
        due: true,
        node: None,
        claimed_at: 0,
    }
}

impl Job {
    pub fn is_live(&self) -> bool {
        matches!(self.state, JobState::Pending | JobState::Active)
    }

    pub fn go(&mut self, to: JobState) {
        assert!(self.state.may_become(to), "the domain's table lacks {} → {to}", self.state);
        self.state = to;
    }

    pub fn begin_epoch(&mut self) {
        *self = Job {
            claims: self.claims,
            epoch: self.epoch + 1,
            epoch_claims: self.claims,
            outcomes: std::mem::take(&mut self.outcomes),
            ..new_job()
        };
    }
}

impl Run {
    pub fn probes_live(&self) -> bool {
        self.jobs.iter().any(|((lane, _), job)| !kind_of(lane).is_analysis() && job.is_live())
    }

    pub fn active_probes(&self) -> i32 {
        let active = |(lane, _): &(String, String), job: &Job| {
            !kind_of(lane).is_analysis() && job.state == JobState::Active
        };
        self.jobs.iter().filter(|(key, job)| active(key, job)).count().try_into().unwrap()
    }

    /// Makes an analysis wait, unless it waits or runs already.
    pub fn analyse(&mut self, kind: JobKind) {
        let key = (kind.as_str().to_owned(), String::new());
        let paused = self.status == RunStatus::Paused;
        let lane = self.lanes.entry(key.0.clone()).or_default();
        match self.jobs.get_mut(&key) {
            Some(job) if job.is_live() => lane.paused &= paused,
            Some(job) => {
                lane.paused = paused;
                job.begin_epoch();
            }
            None => {
                lane.paused = paused;
                self.jobs.insert(key, new_job());
            }
        }
    }

    /// Ends the run if no probe waits or runs.
    pub fn finish(&mut self, now: u64) {
        if self.probes_live() {
            return;
        }
        if !self.status.is_final() {
            assert!(RunStatus::BY_ITSELF.contains(&(self.status, RunStatus::Completed)));
            self.status = RunStatus::Completed;
            self.ended_at = Some(now);
            self.lanes.values_mut().for_each(|lane| lane.paused = false);
        }
        self.analyse(JobKind::AnalyzeBasic);
    }

    pub fn retry(&mut self, now: u64, mine: impl Fn(&(String, String), &Job) -> bool, is_probe: bool) {
        let again: Vec<(String, String)> =
            self.jobs.iter().filter(|(key, job)| mine(key, job)).map(|(key, _)| key.clone()).collect();
        if again.is_empty() {
            return;
        }
        for key in again {
            let job = self.jobs.get_mut(&key).unwrap();
            assert!(job.state.may_become(JobState::Pending));
            job.begin_epoch();
            let lane = self.lanes.get_mut(&key.0).unwrap();
            (lane.paused, lane.changed_at) = (self.status == RunStatus::Paused, now);
        }
        if is_probe && self.status.is_final() {
            (self.status, self.ended_at) = (RunStatus::Running, None);
        }
    }
}

pub fn cancel(run: &mut Run, mode: CancelMode, permission: Permission, now: u64) {
    if mode == CancelMode::Immediate {
        run.jobs.values_mut().filter(|j| j.state == JobState::Active).for_each(|j| j.cancel_requested = true);
    }
    // A second cancel stops what runs at most.
    if permission == Permission::Stays {
        return;
    }
    run.jobs.values_mut().filter(|j| j.state == JobState::Pending).for_each(|j| j.go(JobState::Cancelled));
    for (name, lane) in &mut run.lanes {
        *lane = Lane { paused: false, closed: !kind_of(name).is_analysis(), changed_at: now };
    }
    run.ended_at = Some(now);
    run.finish(now);
}

/// A basic analysis that began before the last probe ended has not seen everything.
pub fn analyse_again(run: &mut Run) {
    let job = &run.jobs[&(JobKind::AnalyzeBasic.as_str().to_owned(), String::new())];
    let probes_changed_at = run
        .lanes
        .iter()
        .filter(|(name, _)| !kind_of(name).is_analysis())
        .map(|(_, lane)| lane.changed_at)
        .max();
    let is_stale =
        run.ended_at.is_some_and(|ended| job.claimed_at < ended.max(probes_changed_at.unwrap_or(0)));
    if job.state == JobState::Completed && is_stale && !run.probes_live() {
        run.analyse(JobKind::AnalyzeBasic);
    }
}
