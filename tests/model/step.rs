//! The steps that there are, and which of them a node may take.

use runlane::domain::{AttemptOutcome, CancelMode, Consequence, ErrorCode, JobState, RunAction};

use super::state::{Mode, State};

/// Counted failures that are followed by another attempt.
const RETRY_LIMIT: u8 = 1;

/// How a worker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Result,
    Error(ErrorCode),
    /// The node gives the job back: it drains.
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A claim takes the gate and reads whether it may happen.
    BeginClaim {
        node: usize,
    },
    /// It commits; the answer may never arrive.
    Claim {
        node: usize,
        job: usize,
        answer_lost: bool,
    },
    /// It found nothing to take.
    ClaimNothing {
        node: usize,
    },
    /// The node reads back what it holds by the database.
    ReadBack {
        node: usize,
    },
    WorkEnds {
        node: usize,
        held: usize,
        answer: Answer,
    },
    /// The end is written; the answer may never arrive, and then it is written again.
    WriteEnd {
        node: usize,
        held: usize,
        answer_lost: bool,
    },
    Renew {
        node: usize,
    },
    Freeze {
        node: usize,
    },
    Thaw {
        node: usize,
    },
    Crash {
        node: usize,
    },
    LeaseRunsOut {
        node: usize,
    },
    Rescue {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Settle,
    Act(RunAction, CancelMode),
    CancelJob {
        job: usize,
    },
    RetryJob {
        job: usize,
    },
    /// A job that waits is given up.
    Bury {
        job: usize,
    },
}

/// One code for each consequence that there is.
fn answers() -> Vec<Answer> {
    let mut seen: Vec<Consequence> = Vec::new();
    let mut answers = vec![Answer::Result, Answer::Released];
    for code in ErrorCode::ALL {
        if !seen.contains(&code.consequence()) {
            seen.push(code.consequence());
            answers.push(Answer::Error(code));
        }
    }
    answers
}

/// The verdict, by the domain's table of what follows from an error.
pub fn judge(answer: Answer, failures: u8) -> AttemptOutcome {
    let code = match answer {
        Answer::Result => return AttemptOutcome::Completed,
        Answer::Released => return AttemptOutcome::Released,
        Answer::Error(code) => code,
    };
    match code.consequence() {
        Consequence::Retry | Consequence::RetryOnce if failures < RETRY_LIMIT => AttemptOutcome::Retried,
        Consequence::Retry | Consequence::RetryOnce | Consequence::Fail => AttemptOutcome::Failed,
        Consequence::Throttle => AttemptOutcome::Throttled,
        Consequence::Lost => AttemptOutcome::Lost,
        Consequence::Cancel => AttemptOutcome::Cancelled,
    }
}

impl State {
    pub fn is_claiming(&self) -> bool {
        self.nodes.iter().any(|node| node.is_claiming)
    }

    fn may_claim(&self) -> bool {
        self.is_open && !self.is_paused && self.jobs.iter().any(|job| job.state == JobState::Pending)
    }

    pub fn node_actions(&self, i: usize, steps: &mut Vec<Step>) {
        let node = &self.nodes[i];
        let can_fail = self.faults > 0;
        if node.is_claiming {
            // The database does it, whatever has become of the node.
            let waiting = (0..self.jobs.len()).filter(|&j| self.jobs[j].state == JobState::Pending);
            for job in waiting {
                if node.mode == Mode::Up {
                    steps.push(Step::Claim { node: i, job, answer_lost: false });
                }
                if can_fail || node.mode != Mode::Up {
                    steps.push(Step::Claim { node: i, job, answer_lost: true });
                }
            }
            steps.push(Step::ClaimNothing { node: i });
        } else {
            // A claim locks its node's row: nobody judges it meanwhile.
            steps.push(Step::Rescue { node: i });
        }
        if node.mode != Mode::Up {
            steps.extend([Step::LeaseRunsOut { node: i }, Step::Thaw { node: i }, Step::Restart { node: i }]);
            return;
        }
        if !node.is_registered {
            steps.push(Step::Restart { node: i });
        } else {
            steps.push(Step::Renew { node: i });
            if node.has_lease && !node.is_claiming && self.may_claim() {
                steps.push(Step::BeginClaim { node: i });
            }
            steps.push(Step::ReadBack { node: i });
        }
        if can_fail {
            steps.extend([Step::Freeze { node: i }, Step::Crash { node: i }]);
        }
        for (h, held) in node.held.iter().enumerate() {
            if held.outcome.is_none() {
                let is_cancelled = self.jobs[held.job].cancel_requested;
                let possible = answers().into_iter().filter(|&answer| match answer {
                    Answer::Result => true,
                    Answer::Error(code) if code.consequence() == Consequence::Cancel => is_cancelled,
                    Answer::Error(_) | Answer::Released => can_fail,
                });
                steps.extend(possible.map(|answer| Step::WorkEnds { node: i, held: h, answer }));
            } else {
                steps.push(Step::WriteEnd { node: i, held: h, answer_lost: false });
                if can_fail {
                    steps.push(Step::WriteEnd { node: i, held: h, answer_lost: true });
                }
            }
        }
    }
}
