//! Lanes as operators see them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::JobKind;
use super::view::Counts;

/// The jobs of one run that share a kind and a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Its id; grows.
    pub id: i64,
    /// Its run.
    pub run_id: Uuid,
    /// The run's name.
    pub run_name: Option<String>,
    /// Who started the run.
    pub owner: String,
    /// What its jobs do.
    pub kind: JobKind,
    /// Of probes: the model.
    pub model: Option<String>,
    /// 0 to 100, higher first.
    pub priority: i16,
    /// Probes of the run that run at once at most.
    pub max_concurrency: Option<i32>,
    /// Whether its run is paused.
    pub is_paused: bool,
    /// Whether it was closed: what waited in it is cancelled.
    pub is_closed: bool,
    /// Its jobs by state.
    pub counts: Counts,
    /// US dollars; none while no price is known.
    pub cost_usd: Option<Decimal>,
    /// When anything of it changed last.
    pub updated_at: DateTime<Utc>,
    /// The job that is next to start.
    pub next_job: Option<i64>,
}

impl Lane {
    /// Where it stands, in a word.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        if self.counts.pending + self.counts.active == 0 {
            if self.is_closed { "closed" } else { "finished" }
        } else if self.is_closed {
            "closing"
        } else if self.is_paused {
            "paused"
        } else if self.counts.active > 0 {
            "running"
        } else {
            "waiting"
        }
    }
}

/// Which lanes; a field that is none narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneFilter {
    /// Of this run.
    pub run_id: Option<Uuid>,
    /// Of this model.
    pub model: Option<String>,
    /// Also those in which nothing waits or runs.
    pub finished_too: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_says_where_it_stands() {
        let lane = |pending, active, is_paused, is_closed| Lane {
            id: 1,
            run_id: Uuid::nil(),
            run_name: None,
            owner: "ada".to_owned(),
            kind: JobKind::ProbeScenario,
            model: None,
            priority: 5,
            max_concurrency: None,
            is_paused,
            is_closed,
            counts: Counts { total: 9, pending, active, ..Counts::default() },
            cost_usd: None,
            updated_at: DateTime::UNIX_EPOCH,
            next_job: None,
        };
        assert_eq!(lane(0, 0, false, false).state(), "finished");
        assert_eq!(lane(0, 0, false, true).state(), "closed");
        assert_eq!(lane(0, 2, false, true).state(), "closing");
        assert_eq!(lane(1, 2, true, false).state(), "paused");
        assert_eq!(lane(1, 2, false, false).state(), "running");
        assert_eq!(lane(1, 0, false, false).state(), "waiting");
    }
}
