//! What has taken too long: stages, their thresholds and what follows.
//!
//! The database decides (`v_staleness_thresholds`, from the installation's configuration and the definition's
//! `lifecycle`); these are its words.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::JobKind;
use super::page::Listed;
use super::text_enum::text_enum;

text_enum! {
    /// What takes its time. Each kind of job has a threshold of its own in each stage, and runs have one.
    Stage {
        /// A job waits for its first attempt: for a slot, a limit, or others that come first. The definition says
        /// `maxWaitingForDependenciesMinutes`.
        Waiting = "waiting",
        /// A job waits for another attempt. The definition says `maxWaitingForRetryMinutes`.
        WaitingForRetry = "waiting_for_retry",
        /// A node works on a job. The definition says `maxStepsInProcessMinutes`.
        InProcess = "in_process",
        /// A run is under way. The definition says `maxDurationMinutes`.
        Run = "run",
    }
}

text_enum! {
    /// How near something is to its threshold.
    Health {
        /// Not near.
        Ok = "ok",
        /// Beyond the warning percentage.
        Warning = "warning",
        /// At its threshold or beyond.
        Stale = "stale",
    }
}

text_enum! {
    /// What is done at the threshold.
    Action {
        /// It is reported, and nothing else.
        Report = "REPORT",
        /// A job that waits becomes due at once; one in process is taken back from its node and starts again. Neither
        /// counts as a failure.
        Requeue = "REQUEUE",
        /// The job becomes a dead letter.
        Dlq = "DLQ",
        /// The run fails: what waits of it is cancelled.
        Fail = "FAIL",
    }
}

/// The installation's threshold of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// What takes its time.
    pub stage: Stage,
    /// Of which kind of job; none for runs.
    pub kind: Option<JobKind>,
    /// From here on it is stale.
    pub threshold_ms: i64,
    /// From this percentage of the threshold on it is warned about.
    pub warn_percent: i16,
    /// What is done.
    pub action: Action,
}

/// One thing that the detector did, to jobs of one lane or to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The run.
    pub run_id: Uuid,
    /// The lane; none for a run as a whole.
    pub lane_id: Option<i64>,
    /// Of which kind of job; none for a run as a whole.
    pub kind: Option<JobKind>,
    /// What took its time.
    pub stage: Stage,
    /// How near it was.
    pub health: Health,
    /// What was done.
    pub action: Action,
    /// To which jobs; none for a run as a whole, and where a step only looked.
    pub jobs: Vec<i64>,
}

/// A job that is not ok.
#[derive(Debug, Clone, PartialEq)]
pub struct StaleJob {
    /// The job.
    pub job_id: i64,
    /// Its run.
    pub run_id: Uuid,
    /// Its lane.
    pub lane_id: i64,
    /// What it does.
    pub kind: JobKind,
    /// Of a probe: the model.
    pub model: Option<String>,
    /// What takes its time.
    pub stage: Stage,
    /// Its place among those of its lane and stage.
    pub at: DateTime<Utc>,
    /// When its clock began.
    pub since: DateTime<Utc>,
    /// How long ago that was.
    pub age_ms: i64,
    /// From here on it is stale.
    pub threshold_ms: i64,
    /// How near it is.
    pub health: Health,
    /// What is done at the threshold.
    pub action: Action,
}

impl StaleJob {
    /// The age in percent of the threshold.
    #[must_use]
    pub fn percent(&self) -> f64 {
        percent(self.age_ms, self.threshold_ms)
    }
}

/// A run that is not ok.
#[derive(Debug, Clone, PartialEq)]
pub struct StaleRun {
    /// The run.
    pub run_id: Uuid,
    /// When its clock began.
    pub since: DateTime<Utc>,
    /// How long ago that was.
    pub age_ms: i64,
    /// From here on it is stale.
    pub threshold_ms: i64,
    /// How near it is.
    pub health: Health,
    /// What is done at the threshold.
    pub action: Action,
}

impl StaleRun {
    /// The age in percent of the threshold.
    #[must_use]
    pub fn percent(&self) -> f64 {
        percent(self.age_ms, self.threshold_ms)
    }
}

fn percent(age_ms: i64, threshold_ms: i64) -> f64 {
    (1_000.0 * age_ms as f64 / threshold_ms as f64).round() / 10.0
}

/// A place in the list of stale jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The lane.
    pub lane_id: i64,
    /// The stage.
    pub stage: Stage,
    /// When the job became what it is.
    pub at: DateTime<Utc>,
    /// The job.
    pub job_id: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.lane_id, self.stage, self.at.timestamp_micros(), self.job_id)
    }
}

/// The text is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [lane_id, stage, micros, job_id] = parts[..] else { return Err(NoPlace) };
        Ok(Self {
            lane_id: lane_id.parse().map_err(|_| NoPlace)?,
            stage: stage.parse().map_err(|_| NoPlace)?,
            at: DateTime::from_timestamp_micros(micros.parse().map_err(|_| NoPlace)?).ok_or(NoPlace)?,
            job_id: job_id.parse().map_err(|_| NoPlace)?,
        })
    }
}

impl Listed for StaleJob {
    const LIST: &'static str = "staleness";
    type Key = Place;
    fn key(&self) -> Place {
        Place { lane_id: self.lane_id, stage: self.stage, at: self.at, job_id: self.job_id }
    }
}

/// Which stale jobs; a field that is none narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StalenessFilter {
    /// Of this run.
    pub run_id: Option<Uuid>,
    /// Of one of these kinds.
    pub kinds: Option<Vec<JobKind>>,
    /// In this stage.
    pub stage: Option<Stage>,
    /// Only warned about, or only stale.
    pub health: Option<Health>,
}

/// That a job which waits is near its threshold or beyond, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleNote {
    /// How long it has waited.
    pub age_ms: i64,
    /// From here on it is stale.
    pub threshold_ms: i64,
    /// What is done then.
    pub action: Action,
}

impl fmt::Display for StaleNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = Span(self.age_ms);
        let threshold = Span(self.threshold_ms);
        if self.age_ms >= self.threshold_ms {
            write!(f, "It has waited for {age}, longer than the {threshold} after which it counts as stale.")
        } else {
            let percent = percent(self.age_ms, self.threshold_ms).floor();
            let then = match self.action {
                Action::Report => "is reported as stale",
                Action::Requeue => "is stale and becomes due at once",
                Action::Dlq => "is stale and becomes a dead letter",
                Action::Fail => "is stale and fails",
            };
            write!(f, "It has waited for {age}, {percent} % of the {threshold} after which it {then}.")
        }
    }
}

/// Milliseconds for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = TimeDelta::milliseconds(self.0);
        match (span.num_hours(), span.num_minutes(), span.num_seconds()) {
            (hours @ 48.., ..) => write!(f, "{hours} h"),
            (_, minutes @ 2.., _) => write!(f, "{minutes} min"),
            (_, _, seconds @ 2..) => write!(f, "{seconds} s"),
            _ => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let at = DateTime::from_timestamp_micros(1_800_000_000_123_456).expect("a time");
        let place = Place { lane_id: 7, stage: Stage::WaitingForRetry, at, job_id: 42 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "7 waiting 5", "7 asleep 5 42", "x waiting 5 42", "7 waiting 5 42 1"] {
            assert_eq!(wrong.parse::<Place>(), Err(NoPlace), "{wrong}");
        }
    }

    #[test]
    fn a_note_says_how_long_and_what_follows() {
        let note = |age_ms, action| StaleNote { age_ms, threshold_ms: 3_600_000, action }.to_string();
        assert_eq!(
            note(3_000_000, Action::Dlq),
            "It has waited for 50 min, 83 % of the 60 min after which it is stale and becomes a dead letter."
        );
        assert_eq!(
            note(200_000_000, Action::Report),
            "It has waited for 55 h, longer than the 60 min after which it counts as stale."
        );
    }
}
