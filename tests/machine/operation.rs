//! What can happen to a queue. Numbers choose among what is there, so every sequence makes sense and can be shortened.

use proptest::prelude::*;
use runlane::domain::{AttemptOutcome, JobKind};

#[derive(Debug, Clone)]
pub enum Operation {
    Start { models: usize, ceiling: Option<i32> },
    Register,
    Claim { node: usize, kind: JobKind, slots: u32 },
    End { active: usize, outcome: AttemptOutcome, later: bool, alone: bool, suspect: bool },
    EndLate { claim: usize, wrong: Wrong },
    Expire { node: usize },
    Renew { node: usize },
    Drain { node: usize },
    Rescue,
    Pause { run: usize },
    Resume { run: usize },
    Cancel { run: usize, immediate: bool },
    Priority { run: usize, priority: i16 },
    RetryFailed { run: usize },
    Analyse { run: usize, kind: JobKind },
    CancelJob { job: usize },
    RetryJob { job: usize },
    Bury { job: usize },
    Redrive,
    PauseQueue,
    ResumeQueue,
    Settle,
}

fn kind() -> impl Strategy<Value = JobKind> {
    prop_oneof![8 => Just(JobKind::ProbeScenario), 2 => Just(JobKind::AnalyzeBasic), 1 => Just(JobKind::AnalyzeDeep)]
}

fn outcome() -> impl Strategy<Value = AttemptOutcome> {
    use AttemptOutcome::{Cancelled, Completed, Failed, Lost, Released, Retried, Throttled};
    prop_oneof![
        5 => Just(Completed), 3 => Just(Failed), 4 => Just(Retried), 1 => Just(Throttled), 2 => Just(Lost),
        1 => Just(Released), 1 => Just(Cancelled)
    ]
}

/// What is wrong with the claim that an end names.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    /// The job's node names an earlier or a later claim of it.
    Number(i32),
    /// Another node names the job's claim.
    Node,
    /// It is over, or another node's by now.
    Old,
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![1 => Just(Wrong::Number(-1)), 1 => Just(Wrong::Number(1)), 1 => Just(Wrong::Node), 2 => Just(Wrong::Old)]
}

pub fn operations() -> impl Strategy<Value = Operation> {
    let any_one = || 0_usize..1_000;
    let run = any_one;
    prop_oneof![
        3 => (1_usize..=2, proptest::option::weighted(0.3, 1_i32..=3))
            .prop_map(|(models, ceiling)| Operation::Start { models, ceiling }),
        2 => Just(Operation::Register),
        20 => (any_one(), kind(), 1_u32..=5).prop_map(|(node, kind, slots)| Operation::Claim { node, kind, slots }),
        24 => (any_one(), outcome(), prop::bool::weighted(0.2), any::<bool>(), any::<bool>())
            .prop_map(|(active, outcome, later, alone, suspect)| Operation::End { active, outcome, later, alone, suspect }),
        6 => (any_one(), wrong()).prop_map(|(claim, wrong)| Operation::EndLate { claim, wrong }),
        1 => any_one().prop_map(|node| Operation::Expire { node }),
        1 => any_one().prop_map(|node| Operation::Renew { node }),
        1 => any_one().prop_map(|node| Operation::Drain { node }),
        2 => Just(Operation::Rescue),
        1 => run().prop_map(|run| Operation::Pause { run }),
        3 => run().prop_map(|run| Operation::Resume { run }),
        1 => (run(), any::<bool>()).prop_map(|(run, immediate)| Operation::Cancel { run, immediate }),
        1 => (run(), 0_i16..=100).prop_map(|(run, priority)| Operation::Priority { run, priority }),
        4 => run().prop_map(|run| Operation::RetryFailed { run }),
        2 => (run(), prop_oneof![Just(JobKind::AnalyzeBasic), Just(JobKind::AnalyzeDeep)])
            .prop_map(|(run, kind)| Operation::Analyse { run, kind }),
        3 => any_one().prop_map(|job| Operation::CancelJob { job }),
        3 => any_one().prop_map(|job| Operation::RetryJob { job }),
        1 => any_one().prop_map(|job| Operation::Bury { job }),
        2 => Just(Operation::Redrive),
        1 => Just(Operation::PauseQueue),
        4 => Just(Operation::ResumeQueue),
        1 => Just(Operation::Settle),
    ]
}
