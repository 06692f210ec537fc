//! What must hold in every state, and what must be reached in some.

use runlane::domain::{AttemptOutcome, JobState};
use stateright::Property;

use super::protocol::Protocol;
use super::state::{Mode, Node, STATES, State};

pub fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always("an epoch ends once", |_, s: &State| {
            s.jobs.iter().all(|job| {
                (0..=job.epoch).all(|epoch| {
                    let ends = job.attempts.iter().filter(|a| a.epoch == epoch && ends(a.outcome));
                    ends.count() <= 1
                })
            })
        }),
        Property::always("claims are numbered without a gap, and never twice", |_, s: &State| {
            s.jobs.iter().all(|job| {
                let ended = job.claims - u8::from(job.state == JobState::Active);
                job.attempts.iter().map(|a| a.number).eq(1..=ended)
            })
        }),
        Property::always("counters are the sums over the jobs", |_, s: &State| {
            STATES.iter().enumerate().all(|(i, &state)| {
                let sum = s.jobs.iter().filter(|job| s.effective(job) == state).count();
                usize::try_from(s.counters[i]) == Ok(sum)
            })
        }),
        Property::always("a run is over when nothing waits or runs", |_, s: &State| {
            s.run.is_final() || s.is_live()
        }),
        Property::always("nothing is claimed after a pause or a cancel has returned", |_, s: &State| {
            !s.claimed_while_held
        }),
        Property::always("a late write changes nothing", |_, s: &State| !s.changed_late),
        Property::always("jobs and runs go only where the tables let them", |_, s: &State| !s.went_astray),
        Property::always("no two nodes with a lease work on one job", |_, s: &State| {
            (0..s.jobs.len()).all(|job| {
                let works = |node: &&Node| {
                    node.mode == Mode::Up
                        && node.is_registered
                        && node.has_lease
                        && node.held.iter().any(|h| h.job == job && h.outcome.is_none())
                };
                s.nodes.iter().filter(works).count() <= 1
            })
        }),
        Property::sometimes("everything is over", |_, s: &State| s.is_over()),
        Property::sometimes("a failed job ran again and completed", |_, s: &State| {
            s.jobs.iter().any(|job| job.epoch == 1 && job.state == JobState::Completed)
        }),
    ]
}

/// Whether nothing may follow such an outcome in its epoch.
fn ends(outcome: AttemptOutcome) -> bool {
    matches!(outcome, AttemptOutcome::Completed | AttemptOutcome::Failed | AttemptOutcome::Cancelled)
}
