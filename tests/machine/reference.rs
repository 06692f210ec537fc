//! The queue in plain memory: slow, obvious, and written from the contract. It knows no lane counters and no locks: what it
//! shows of counters it counts.

use std::collections::BTreeMap;

use runlane::domain::run::Permission;
use runlane::domain::{AttemptOutcome, CancelMode, JobKind, JobState, RunAction, RunStatus};

use super::run::{Job, Lane, Run, analyse_again, cancel, new_job};
use super::seen::{Key, Seen, SeenJob, SeenLane, kind_of};

/// How one claim ends.
#[derive(Debug, Clone)]
pub struct Ending {
    pub key: Key,
    pub outcome: AttemptOutcome,
    pub later: bool,
    pub alone: bool,
    pub suspect: bool,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub queue_paused: bool,
    pub runs: Vec<Run>,
    /// Counts operations: all that happens in one happens at one time.
    pub now: u64,
}

impl Reference {
    pub fn start(&mut self, models: &[&str], scenarios: &[String], ceiling: Option<i32>) {
        let keys = models.iter().flat_map(|m| scenarios.iter().map(|s| ((*m).to_owned(), s.clone())));
        self.runs.push(Run {
            status: RunStatus::Pending,
            priority: 5,
            ceiling,
            ended_at: None,
            lanes: models.iter().map(|m| ((*m).to_owned(), Lane::default())).collect(),
            jobs: keys.map(|key| (key, new_job())).collect(),
        });
    }

    pub fn job(&self, key: &Key) -> &Job {
        &self.runs[key.0].jobs[&(key.1.clone(), key.2.clone())]
    }

    pub fn keys(&self, wanted: impl Fn(&Job) -> bool) -> Vec<Key> {
        let all = self
            .runs
            .iter()
            .enumerate()
            .flat_map(|(i, run)| run.jobs.iter().map(move |(key, job)| (i, key, job)));
        all.filter(|(_, _, job)| wanted(job))
            .map(|(i, (lane, scenario), _)| (i, lane.clone(), scenario.clone()))
            .collect()
    }

    /// Whether a claim may take this job now.
    pub fn is_claimable(&self, key: &Key) -> bool {
        let (run, job) = (&self.runs[key.0], self.job(key));
        let lane = &run.lanes[&key.1];
        let has_room =
            kind_of(&key.1).is_analysis() || run.ceiling.is_none_or(|ceiling| run.active_probes() < ceiling);
        !self.queue_paused
            && !lane.paused
            && !lane.closed
            && job.state == JobState::Pending
            && job.due
            && has_room
    }

    pub fn claim(&mut self, key: &Key, node: usize) {
        let now = self.now;
        let run = &mut self.runs[key.0];
        run.lanes.get_mut(&key.1).unwrap().changed_at = now;
        if run.status == RunStatus::Pending {
            run.status = RunStatus::Running;
        }
        let job = run.jobs.get_mut(&(key.1.clone(), key.2.clone())).unwrap();
        job.go(JobState::Active);
        (job.claims, job.node, job.claimed_at) = (job.claims + 1, Some(node), now);
    }

    /// Ends claims at one time.
    pub fn end(&mut self, endings: &[Ending]) {
        let now = self.now;
        for ending in endings {
            let Ending { key, outcome, later, alone, suspect } = ending.clone();
            let run = &mut self.runs[key.0];
            let lane = run.lanes.get_mut(&key.1).unwrap();
            lane.changed_at = now;
            let job = run.jobs.get_mut(&(key.1, key.2)).unwrap();
            let outcome = if outcome == AttemptOutcome::Retried && lane.closed {
                AttemptOutcome::Failed
            } else {
                outcome
            };
            job.go(match outcome {
                AttemptOutcome::Completed => JobState::Completed,
                AttemptOutcome::Failed => JobState::Failed,
                AttemptOutcome::Cancelled => JobState::Cancelled,
                _ if lane.closed || job.cancel_requested => JobState::Cancelled,
                _ => JobState::Pending,
            });
            let is_failure = matches!(outcome, AttemptOutcome::Failed | AttemptOutcome::Retried) && !alone;
            job.counts[0] += i32::from(is_failure);
            job.counts[1] += i32::from(outcome == AttemptOutcome::Lost || alone);
            job.counts[2] += i32::from(alone);
            job.counts[3] += i32::from(outcome == AttemptOutcome::Throttled);
            job.suspect = match outcome {
                AttemptOutcome::Lost => job.suspect || suspect,
                AttemptOutcome::Released => job.suspect,
                _ => false,
            };
            (job.due, job.node) = (!later, None);
            job.outcomes.push(outcome);
        }
        let mut touched: Vec<usize> = endings.iter().map(|e| e.key.0).collect();
        touched.sort_unstable();
        touched.dedup();
        for run in touched {
            let ended = |kind_wanted: fn(&str) -> bool| {
                endings.iter().any(|e| e.key.0 == run && kind_wanted(&e.key.1))
            };
            let run = &mut self.runs[run];
            if ended(|lane| !kind_of(lane).is_analysis()) {
                run.finish(now);
            }
            if ended(|lane| kind_of(lane) == JobKind::AnalyzeBasic) {
                analyse_again(run);
            }
        }
    }

    /// Does this to a run if its status allows it.
    pub fn act(&mut self, run: usize, action: RunAction, how: How) -> bool {
        let now = self.now;
        let run = &mut self.runs[run];
        let permission = run.status.permission(action);
        match permission {
            Permission::Refused => return false,
            // A retry with nothing to retry leaves the run as it is.
            Permission::Becomes(to) if action != RunAction::RetryFailed => run.status = to,
            Permission::Becomes(_) | Permission::Stays => {}
        }
        match (action, how) {
            (RunAction::Pause | RunAction::Resume, _) => {
                let paused = action == RunAction::Pause;
                run.lanes.values_mut().for_each(|lane| (lane.paused, lane.changed_at) = (paused, now));
            }
            (RunAction::Cancel, How::Cancel(mode)) => cancel(run, mode, permission, now),
            (RunAction::SetPriority, How::Priority(priority)) => run.priority = priority,
            (RunAction::RetryFailed, _) => {
                run.retry(
                    now,
                    |(lane, _), job| !kind_of(lane).is_analysis() && job.state == JobState::Failed,
                    true,
                );
            }
            (RunAction::StartAnalysis, How::Analyse(kind)) => run.analyse(kind),
            (action, how) => unreachable!("{action} {how:?}"),
        }
        true
    }

    pub fn cancel_job(&mut self, key: &Key) -> bool {
        let now = self.now;
        let run = &mut self.runs[key.0];
        let job = run.jobs.get_mut(&(key.1.clone(), key.2.clone())).unwrap();
        match job.state {
            JobState::Active => job.cancel_requested = true,
            JobState::Pending => {
                job.go(JobState::Cancelled);
                run.lanes.get_mut(&key.1).unwrap().changed_at = now;
                if !kind_of(&key.1).is_analysis() {
                    run.finish(now);
                }
            }
            _ => return false,
        }
        true
    }

    /// Gives up a job that waits.
    pub fn bury_job(&mut self, key: &Key) -> bool {
        let now = self.now;
        let run = &mut self.runs[key.0];
        let job = run.jobs.get_mut(&(key.1.clone(), key.2.clone())).unwrap();
        if job.state != JobState::Pending {
            return false;
        }
        job.go(JobState::Failed);
        run.lanes.get_mut(&key.1).unwrap().changed_at = now;
        if !kind_of(&key.1).is_analysis() {
            run.finish(now);
        }
        true
    }

    /// Makes everything that failed wait again, save the probes of cancelled runs; says how many.
    pub fn redrive(&mut self) -> i64 {
        let now = self.now;
        let failed = self.keys(|job| job.state == JobState::Failed);
        let mut redriven = 0;
        for key in failed {
            let is_probe = !kind_of(&key.1).is_analysis();
            let run = &mut self.runs[key.0];
            if !is_probe || run.status != RunStatus::Cancelled {
                run.retry(now, |(lane, scenario), _| *lane == key.1 && *scenario == key.2, is_probe);
                redriven += 1;
            }
        }
        redriven
    }

    pub fn retry_job(&mut self, key: &Key) -> bool {
        let (now, is_probe) = (self.now, !kind_of(&key.1).is_analysis());
        let run = &mut self.runs[key.0];
        let takes = run.status.permission(RunAction::RetryFailed) != Permission::Refused;
        let is_failed = run.jobs[&(key.1.clone(), key.2.clone())].state == JobState::Failed;
        if !is_failed || is_probe && !takes {
            return false;
        }
        run.retry(now, |(lane, scenario), _| *lane == key.1 && *scenario == key.2, is_probe);
        true
    }

    pub fn seen(&self) -> Seen {
        let mut seen = Seen {
            queue_paused: self.queue_paused,
            runs: self.runs.iter().map(|run| (run.status, run.priority)).collect(),
            lanes: BTreeMap::new(),
            jobs: BTreeMap::new(),
        };
        for (i, run) in self.runs.iter().enumerate() {
            for (name, lane) in &run.lanes {
                let of = |state| {
                    run.jobs.iter().filter(|((l, _), job)| l == name && job.state == state).count() as i32
                };
                let counters = [
                    JobState::Pending,
                    JobState::Active,
                    JobState::Completed,
                    JobState::Failed,
                    JobState::Cancelled,
                ]
                .map(of);
                let paused = lane.paused && counters[0] + counters[1] > 0;
                seen.lanes.insert((i, name.clone()), SeenLane { counters, paused, open: !lane.closed });
            }
            for ((lane, scenario), job) in &run.jobs {
                let &Job { state, claims, epoch, epoch_claims, counts, suspect, cancel_requested, .. } = job;
                let outcomes = job.outcomes.iter().map(|o| o.as_str().to_owned()).collect();
                let job = SeenJob {
                    state,
                    claims,
                    epoch,
                    epoch_claims,
                    counts,
                    suspect,
                    cancel_requested,
                    outcomes,
                };
                seen.jobs.insert((i, lane.clone(), scenario.clone()), job);
            }
        }
        seen
    }
}

/// What an action is done with.
#[derive(Debug, Clone, Copy)]
pub enum How {
    Plainly,
    Cancel(CancelMode),
    Priority(i16),
    Analyse(JobKind),
}
