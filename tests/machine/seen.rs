//! What can be seen of a queue, the same of the database and of the reference.

use std::collections::{BTreeMap, HashMap};

use runlane::domain::{JobKind, JobState, RunStatus};
use sqlx::PgPool;
use uuid::Uuid;

/// A run's place, its lane (a model, or a kind of analysis), and the scenario's key or nothing.
pub type Key = (usize, String, String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenJob {
    /// A waiting job of a closed lane is cancelled.
    pub state: JobState,
    pub claims: i32,
    pub epoch: i32,
    pub epoch_claims: i32,
    /// Failures, losses, losses alone, throttles.
    pub counts: [i32; 4],
    pub suspect: bool,
    pub cancel_requested: bool,
    pub outcomes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLane {
    /// Pending, active, completed, failed, cancelled: the stored counters.
    pub counters: [i32; 5],
    /// While anything waits or runs.
    pub paused: bool,
    pub open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub queue_paused: bool,
    pub runs: Vec<(RunStatus, i16)>,
    pub lanes: BTreeMap<(usize, String), SeenLane>,
    pub jobs: BTreeMap<Key, SeenJob>,
}

impl Seen {
    /// The first difference, in words.
    pub fn difference(&self, reference: &Self) -> Option<String> {
        if self.queue_paused != reference.queue_paused {
            return Some(format!("the queue's pause is {}", self.queue_paused));
        }
        if self.runs != reference.runs {
            return Some(format!("runs are {:?}, should be {:?}", self.runs, reference.runs));
        }
        map_difference("job", &self.jobs, &reference.jobs)
            .or_else(|| map_difference("lane", &self.lanes, &reference.lanes))
    }
}

fn map_difference<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    is: &BTreeMap<K, V>,
    should: &BTreeMap<K, V>,
) -> Option<String> {
    let keys: std::collections::BTreeSet<&K> = is.keys().chain(should.keys()).collect();
    keys.into_iter()
        .find(|k| is.get(k) != should.get(k))
        .map(|k| format!("{what} {k:?}\n     is {:?}\n should {:?}", is.get(k), should.get(k)))
}

type JobRow = (i64, Uuid, String, String, String, i32, i32, i32, Vec<i32>, bool, bool, Vec<String>);

/// Reads the database; also which job has which id.
pub async fn read(db: &PgPool, runs: &[Uuid]) -> (Seen, HashMap<i64, Key>) {
    let place = |run: Uuid| runs.iter().position(|&r| r == run).expect("no other runs");
    let jobs: Vec<JobRow> = sqlx::query_as(
        "select j.id, l.run_id, coalesce(l.model, l.kind::text), coalesce(s.key, ''),
                case when j.state = 'pending' and not l.is_open then 'cancelled' else j.state::text end,
                j.claims, j.epoch, j.epoch_claims,
                array[j.failures, j.losses, j.losses_alone, j.throttles]::int[], j.is_suspect, j.cancel_requested,
                array(select a.outcome::text from attempt a where a.job_id = j.id order by a.number)
           from current_job j join lane l on l.id = j.lane_id left join scenario s on s.id = j.scenario_id",
    )
    .fetch_all(db)
    .await
    .unwrap();
    let lanes: Vec<(Uuid, String, Vec<i32>, bool, bool)> = sqlx::query_as(
        "select run_id, coalesce(model, kind::text), array[pending, active, completed, failed, cancelled],
                is_paused and is_live, is_open
           from lane",
    )
    .fetch_all(db)
    .await
    .unwrap();
    let statuses: Vec<(Uuid, String, i16)> =
        sqlx::query_as("select id, status::text, priority from run").fetch_all(db).await.unwrap();
    let queue_paused = sqlx::query_scalar("select is_paused from queue_state").fetch_one(db).await.unwrap();

    let mut found: Vec<(usize, (RunStatus, i16))> = statuses
        .into_iter()
        .map(|(id, status, priority)| (place(id), (status.parse().unwrap(), priority)))
        .collect();
    found.sort_unstable_by_key(|(place, _)| *place);
    let mut ids = HashMap::new();
    let mut seen = Seen {
        queue_paused,
        runs: found.into_iter().map(|(_, run)| run).collect(),
        lanes: lanes
            .into_iter()
            .map(|(run, lane, counters, paused, open)| {
                ((place(run), lane), SeenLane { counters: counters.try_into().unwrap(), paused, open })
            })
            .collect(),
        jobs: BTreeMap::new(),
    };
    for (
        id,
        run,
        lane,
        scenario,
        state,
        claims,
        epoch,
        epoch_claims,
        counts,
        suspect,
        cancel_requested,
        outcomes,
    ) in jobs
    {
        let key = (place(run), lane, scenario);
        ids.insert(id, key.clone());
        let counts = counts.try_into().unwrap();
        let state = state.parse().unwrap();
        seen.jobs.insert(
            key,
            SeenJob { state, claims, epoch, epoch_claims, counts, suspect, cancel_requested, outcomes },
        );
    }
    (seen, ids)
}

/// The kind of job that a lane has.
pub fn kind_of(lane: &str) -> JobKind {
    lane.parse().unwrap_or(JobKind::ProbeScenario)
}
