//! A run of one lane, its jobs, and the nodes that work on them: the database's rows and what each node knows.

use runlane::domain::{AttemptOutcome, JobState, RunStatus};

/// An attempt on record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub number: u8,
    pub epoch: u8,
    pub outcome: AttemptOutcome,
}

/// A job's row and its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    pub state: JobState,
    pub claims: u8,
    pub epoch: u8,
    pub failures: u8,
    pub cancel_requested: bool,
    /// The node that holds it, and that node's registration.
    pub holder: Option<(usize, u8)>,
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Up,
    /// It does nothing and notices nothing; later it goes on as if nothing had been.
    Frozen,
    /// Its process is gone, and all that it knew.
    Down,
}

/// Something that a node has to do for a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    pub job: usize,
    pub number: u8,
    /// None while the worker works; then what is to be written.
    pub outcome: Option<AttemptOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Counts its registrations: each is a new id.
    pub session: u8,
    /// Whether its row is there.
    pub is_registered: bool,
    pub has_lease: bool,
    pub mode: Mode,
    /// A claim is under way, and has read that it may happen.
    pub is_claiming: bool,
    pub held: Vec<Held>,
}

/// Pending, active, completed, failed, cancelled.
pub type Counters = [i8; 5];

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub run: RunStatus,
    pub is_paused: bool,
    pub is_open: bool,
    pub counters: Counters,
    pub jobs: Vec<Job>,
    pub nodes: Vec<Node>,
    /// Faults that may still happen.
    pub faults: u8,
    /// Retries that somebody may still ask for.
    pub retries: u8,
    /// A claim committed after a pause or a cancel had returned.
    pub claimed_while_held: bool,
    /// A write changed something under a claim that no longer held.
    pub changed_late: bool,
    /// A job or the run went where the domain's tables do not let it go.
    pub went_astray: bool,
}

pub const STATES: [JobState; 5] =
    [JobState::Pending, JobState::Active, JobState::Completed, JobState::Failed, JobState::Cancelled];

pub fn place(state: JobState) -> usize {
    STATES.iter().position(|&s| s == state).expect("every state is counted")
}

impl State {
    pub fn start(jobs: usize, nodes: usize, faults: u8, retries: u8) -> Self {
        let job = Job {
            state: JobState::Pending,
            claims: 0,
            epoch: 0,
            failures: 0,
            cancel_requested: false,
            holder: None,
            attempts: Vec::new(),
        };
        let node = Node {
            session: 0,
            is_registered: true,
            has_lease: true,
            mode: Mode::Up,
            is_claiming: false,
            held: Vec::new(),
        };
        Self {
            run: RunStatus::Pending,
            is_paused: false,
            is_open: true,
            counters: [i8::try_from(jobs).expect("few"), 0, 0, 0, 0],
            jobs: vec![job; jobs],
            nodes: vec![node; nodes],
            faults,
            retries,
            claimed_while_held: false,
            changed_late: false,
            went_astray: false,
        }
    }

    /// A client sees it so: what waits in a closed lane is cancelled.
    pub fn effective(&self, job: &Job) -> JobState {
        if job.state == JobState::Pending && !self.is_open { JobState::Cancelled } else { job.state }
    }

    /// Whether anything waits or runs.
    pub fn is_live(&self) -> bool {
        self.counters[0] + self.counters[1] > 0
    }

    /// Moves a job's row and the counters with it.
    pub fn go(&mut self, job: usize, to: JobState) {
        let from = self.jobs[job].state;
        self.went_astray |= !from.may_become(to);
        self.jobs[job].state = to;
        self.counters[place(from)] -= 1;
        self.counters[place(to)] += 1;
    }

    pub fn run_becomes(&mut self, to: RunStatus) {
        self.went_astray |= !RunStatus::transitions().contains(&(self.run, to));
        self.run = to;
    }

    /// Closes the run when nothing waits or runs any more.
    pub fn finish(&mut self) {
        if !self.is_live() && !self.run.is_final() {
            self.run_becomes(RunStatus::Completed);
            self.is_paused = false;
        }
    }

    /// Whether everything has ended, on record and in every node's memory.
    pub fn is_over(&self) -> bool {
        self.run.is_final() && !self.is_live() && self.nodes.iter().all(|node| node.held.is_empty())
    }
}
