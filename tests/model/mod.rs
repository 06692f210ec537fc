//! The protocol of claims, leases, pauses, cancels and ends as a model of which every reachable state is looked at.

mod properties;
mod protocol;
mod state;
mod step;

use std::collections::{HashMap, HashSet};

use stateright::{Checker, Model};

use protocol::{ALL, Protocol, Rules};
use state::State;

/// Jobs and faults: one job with faults that meet, and two that share a run. MODEL_FAULTS adds faults to both; each makes
/// about ten times as many states.
fn sizes() -> [(usize, u8); 2] {
    let more = std::env::var("MODEL_FAULTS")
        .map_or(0, |text| text.parse().unwrap_or_else(|e| panic!("MODEL_FAULTS: {e}")));
    [(1, 2 + more), (2, 1 + more)]
}

fn protocol(jobs: usize, faults: u8, rules: Rules) -> Protocol {
    Protocol { jobs, nodes: 2, faults, retries: 1, rules }
}

#[test]
fn no_order_of_events_breaks_the_protocol() {
    for (jobs, faults) in sizes() {
        let checked = protocol(jobs, faults, ALL).checker().threads(2).spawn_bfs().join();
        println!("model jobs={jobs} nodes=2 faults={faults} states={}", checked.unique_state_count());
        checked.assert_properties();
    }
}

/// The model with one rule less must reach what `property` forbids.
#[track_caller]
fn breaks(rules: Rules, jobs: usize, faults: u8, property: &'static str) {
    let checked = protocol(jobs, faults, rules).checker().threads(2).spawn_bfs().join();
    let found = checked.discovery(property).unwrap_or_else(|| panic!("{property:?} holds without {rules:?}"));
    println!("{property}: broken in {} steps", found.into_actions().len());
}

#[test]
fn without_the_claims_number_a_late_write_changes_something() {
    let rules = Rules { fence_by_number: false, ..ALL };
    breaks(rules, 1, 2, "a late write changes nothing");
    breaks(rules, 1, 2, "claims are numbered without a gap, and never twice");
}

#[test]
fn the_claims_number_alone_is_fence_enough() {
    let rules = Rules { fence_by_node: false, ..ALL };
    protocol(1, 2, rules).checker().threads(2).spawn_bfs().join().assert_properties();
}

#[test]
fn without_the_gate_a_claim_follows_a_pause() {
    breaks(Rules { gate: false, ..ALL }, 1, 0, "nothing is claimed after a pause or a cancel has returned");
}

/// The states from which the end of everything cannot be reached any more.
fn stuck(model: &Protocol) -> (usize, Vec<State>) {
    let mut places: HashMap<State, usize> = HashMap::new();
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut todo: Vec<State> = Vec::new();
    for state in model.init_states() {
        places.insert(state.clone(), before.len());
        before.push(Vec::new());
        todo.push(state);
    }
    while let Some(state) = todo.pop() {
        let from = places[&state];
        for next in model.next_states(&state) {
            let to = *places.entry(next.clone()).or_insert_with(|| {
                before.push(Vec::new());
                todo.push(next);
                before.len() - 1
            });
            before[to].push(from);
        }
    }
    let mut can_end: HashSet<usize> = HashSet::new();
    let mut todo: Vec<usize> = places.iter().filter(|(s, _)| s.is_over()).map(|(_, &place)| place).collect();
    while let Some(place) = todo.pop() {
        if can_end.insert(place) {
            todo.extend(&before[place]);
        }
    }
    let stuck = places.iter().filter(|(_, place)| !can_end.contains(place)).map(|(state, _)| state.clone());
    (places.len(), stuck.collect())
}

#[test]
fn from_every_state_everything_can_still_end() {
    let (states, stuck) = stuck(&protocol(1, 2, ALL));
    println!("model jobs=1 nodes=2 faults=2 states={states} stuck={}", stuck.len());
    assert!(stuck.is_empty(), "{:#?}", stuck[0]);
}

#[test]
fn without_the_rescue_a_job_is_lost() {
    let (_, stuck) = stuck(&protocol(1, 1, Rules { rescue: false, ..ALL }));
    assert!(!stuck.is_empty());
}
