//! What nodes, people and misfortune can do, one step at a time. What may follow what comes from the domain's tables.

use runlane::domain::run::Permission;
use runlane::domain::{AttemptOutcome, CancelMode, Consequence, JobState, RunAction, RunStatus};
use stateright::{Model, Property};

use super::properties::properties;
use super::state::{Attempt, Held, Mode, State};
use super::step::{Answer, Step, judge};

/// The rules that the protocol rests on; a test takes one away and sees what breaks.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// An end names the number of the claim.
    pub fence_by_number: bool,
    /// An end names the node.
    pub fence_by_node: bool,
    /// Pause and cancel wait for claims that are under way.
    pub gate: bool,
    /// Somebody gives the jobs of dead nodes back.
    pub rescue: bool,
}

pub const ALL: Rules = Rules { fence_by_number: true, fence_by_node: true, gate: true, rescue: true };

#[derive(Debug, Clone)]
pub struct Protocol {
    pub jobs: usize,
    pub nodes: usize,
    pub faults: u8,
    pub retries: u8,
    pub rules: Rules,
}

impl State {
    /// A claim ends: the row, its attempt, the counters and the run change together.
    fn end(&mut self, job: usize, number: u8, outcome: AttemptOutcome) {
        let is_open = self.is_open;
        let row = &mut self.jobs[job];
        let outcome =
            if outcome == AttemptOutcome::Retried && !is_open { AttemptOutcome::Failed } else { outcome };
        let to = match outcome {
            AttemptOutcome::Completed => JobState::Completed,
            AttemptOutcome::Failed => JobState::Failed,
            AttemptOutcome::Cancelled => JobState::Cancelled,
            _ if !is_open || row.cancel_requested => JobState::Cancelled,
            _ => JobState::Pending,
        };
        row.failures += u8::from(matches!(outcome, AttemptOutcome::Failed | AttemptOutcome::Retried));
        row.holder = None;
        row.attempts.push(Attempt { number, epoch: row.epoch, outcome });
        self.go(job, to);
        self.finish();
    }

    fn begin_epoch(&mut self, job: usize) {
        self.go(job, JobState::Pending);
        let row = &mut self.jobs[job];
        (row.epoch, row.failures, row.cancel_requested) = (row.epoch + 1, 0, false);
    }

    fn act(&mut self, action: RunAction, mode: CancelMode) -> Option<()> {
        let permission = self.run.permission(action);
        if permission == Permission::Refused {
            return None;
        }
        match action {
            RunAction::Pause | RunAction::Resume => self.is_paused = action == RunAction::Pause,
            RunAction::Cancel => {
                if mode == CancelMode::Immediate {
                    let active = self.jobs.iter_mut().filter(|job| job.state == JobState::Active);
                    active.for_each(|job| job.cancel_requested = true);
                }
                if permission != Permission::Stays {
                    // The rows of what waits are rewritten later.
                    (self.counters[4], self.counters[0]) = (self.counters[4] + self.counters[0], 0);
                    (self.is_open, self.is_paused) = (false, false);
                }
            }
            RunAction::RetryFailed => {
                let failed: Vec<usize> =
                    (0..self.jobs.len()).filter(|&j| self.jobs[j].state == JobState::Failed).collect();
                self.retries = self.retries.checked_sub(1).filter(|_| !failed.is_empty())?;
                failed.into_iter().for_each(|job| self.begin_epoch(job));
            }
            // Nothing that the properties speak of: priority, analysis, and what hides an ended run.
            RunAction::SetPriority | RunAction::SetBudget | RunAction::StartAnalysis | RunAction::Delete => {
                return None;
            }
        }
        if let Permission::Becomes(to) = permission {
            self.run_becomes(to);
        }
        Some(())
    }
}

impl Protocol {
    fn write_end(&self, state: &mut State, node: usize, held: usize, answer_lost: bool) {
        let Held { job, number, outcome } = state.nodes[node].held[held].clone();
        let outcome = outcome.expect("the work has ended");
        let row = &state.jobs[job];
        let me = (node, state.nodes[node].session);
        let holds = row.state == JobState::Active && row.holder == Some(me) && row.claims == number;
        let passes = row.state == JobState::Active
            && (row.holder == Some(me) || !self.rules.fence_by_node)
            && (row.claims == number || !self.rules.fence_by_number);
        if passes {
            state.changed_late |= !holds;
            state.end(job, number, outcome);
        }
        if answer_lost {
            state.faults -= 1;
        } else {
            state.nodes[node].held.remove(held);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.jobs, self.nodes, self.faults, self.retries)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        (0..state.nodes.len()).for_each(|node| state.node_actions(node, steps));
        if !state.is_open {
            steps.push(Step::Settle);
        }
        // Without the gate people do not wait for claims.
        if !state.is_claiming() || !self.rules.gate {
            for action in [RunAction::Pause, RunAction::Resume, RunAction::RetryFailed] {
                steps.push(Step::Act(action, CancelMode::Graceful));
            }
            for &mode in CancelMode::ALL {
                steps.push(Step::Act(RunAction::Cancel, mode));
            }
            for job in 0..state.jobs.len() {
                steps.extend([Step::CancelJob { job }, Step::RetryJob { job }]);
                if state.faults > 0 {
                    steps.push(Step::Bury { job });
                }
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::BeginClaim { node } => state.nodes[node].is_claiming = true,
            Step::ClaimNothing { node } => state.nodes[node].is_claiming = false,
            Step::Claim { node, job, answer_lost } => {
                state.claimed_while_held |= state.is_paused || !state.is_open;
                if state.run == RunStatus::Pending {
                    state.run_becomes(RunStatus::Running);
                }
                state.go(job, JobState::Active);
                let claimer = &mut state.nodes[node];
                claimer.is_claiming = false;
                let row = &mut state.jobs[job];
                row.claims += 1;
                row.holder = Some((node, claimer.session));
                let number = row.claims;
                if !answer_lost {
                    claimer.held.push(Held { job, number, outcome: None });
                } else if claimer.mode == Mode::Up {
                    state.faults -= 1;
                }
            }
            Step::ReadBack { node } => {
                let me = (node, state.nodes[node].session);
                for (job, row) in state.jobs.iter().enumerate() {
                    let number = row.claims;
                    let held = &mut state.nodes[node].held;
                    if row.holder == Some(me) && !held.iter().any(|h| h.job == job && h.number == number) {
                        held.push(Held { job, number, outcome: None });
                    }
                }
            }
            Step::WorkEnds { node, held, answer } => {
                let held = &mut state.nodes[node].held[held];
                held.outcome = Some(judge(answer, state.jobs[held.job].failures));
                let is_fault = match answer {
                    Answer::Result => false,
                    Answer::Error(code) => code.consequence() != Consequence::Cancel,
                    Answer::Released => true,
                };
                state.faults -= u8::from(is_fault);
            }
            Step::WriteEnd { node, held, answer_lost } => self.write_end(&mut state, node, held, answer_lost),
            Step::Renew { node } => state.nodes[node].has_lease = true,
            Step::Freeze { node } => {
                (state.nodes[node].mode, state.faults) = (Mode::Frozen, state.faults - 1);
            }
            Step::Thaw { node } if state.nodes[node].mode == Mode::Frozen => {
                state.nodes[node].mode = Mode::Up
            }
            Step::Crash { node } => {
                state.nodes[node].held.clear();
                (state.nodes[node].mode, state.faults) = (Mode::Down, state.faults - 1);
            }
            // A node that runs gives up its work before its lease ends, as if it had crashed.
            Step::LeaseRunsOut { node } => state.nodes[node].has_lease = false,
            Step::Rescue { node }
                if !state.nodes[node].has_lease && state.nodes[node].is_registered && self.rules.rescue =>
            {
                let dead = (node, state.nodes[node].session);
                state.nodes[node].is_registered = false;
                for job in 0..state.jobs.len() {
                    if state.jobs[job].holder == Some(dead) {
                        let number = state.jobs[job].claims;
                        state.end(job, number, AttemptOutcome::Lost);
                    }
                }
            }
            Step::Restart { node }
                if !state.nodes[node].is_registered && state.nodes[node].mode != Mode::Frozen =>
            {
                let node = &mut state.nodes[node];
                (node.session, node.is_registered, node.has_lease) = (node.session + 1, true, true);
                node.mode = Mode::Up;
                node.held.clear();
            }
            Step::Thaw { .. } | Step::Rescue { .. } | Step::Restart { .. } => return None,
            Step::Settle => {
                for row in state.jobs.iter_mut().filter(|row| row.state == JobState::Pending) {
                    row.state = JobState::Cancelled;
                }
            }
            Step::Act(action, mode) => {
                state.act(action, mode)?;
                state.finish();
            }
            Step::CancelJob { job } => {
                if state.effective(&state.jobs[job]).allow_cancel(0).is_err() {
                    return None;
                }
                if state.jobs[job].state == JobState::Active {
                    state.jobs[job].cancel_requested = true;
                } else {
                    state.go(job, JobState::Cancelled);
                    state.finish();
                }
            }
            Step::Bury { job } => {
                if state.effective(&state.jobs[job]).allow_burial(0).is_err() {
                    return None;
                }
                state.faults -= 1;
                state.go(job, JobState::Failed);
                state.finish();
            }
            Step::RetryJob { job } => {
                let permission = state.run.permission(RunAction::RetryFailed);
                if state.jobs[job].state.allow_retry(0).is_err() || permission == Permission::Refused {
                    return None;
                }
                state.retries = state.retries.checked_sub(1)?;
                state.begin_epoch(job);
                if let Permission::Becomes(to) = permission {
                    state.run_becomes(to);
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}
