//! Does each operation to the database and to the reference, and compares.

use std::collections::HashMap;
use std::time::Duration;

use runlane::domain::dead_letter::{DeadLetterFilter, Redrive};
use runlane::domain::job::Claim;
use runlane::domain::leader::Duty;
use runlane::domain::{AttemptOutcome, CancelMode, JobKind, JobState, RunAction, ids};
use runlane::store::{Beat, JobChange, JobHead, Leadership, RunChange, RunHead};
use serde_json::json;
use uuid::Uuid;

use super::operation::{Operation, Wrong};
use super::reference::{Ending, How, Reference};
use super::seen::{Key, kind_of, read};
use crate::support::app::fresh_database;
use crate::support::direct::{Direct, end};

/// Scenarios of every run.
const SCENARIOS: usize = 3;
const MODELS: [&str; 2] = ["mock/echo", "mock/rater"];
/// A lease of a test's node; only what expires on purpose does.
const LEASE: Duration = Duration::from_secs(600);

type Step = Result<(), String>;

/// A node as the database must have it.
struct Node {
    id: Uuid,
    is_registered: bool,
    is_expired: bool,
    is_draining: bool,
}

pub struct Driver {
    direct: Direct,
    leader: Leadership,
    reference: Reference,
    definition: Uuid,
    runs: Vec<Uuid>,
    nodes: Vec<Node>,
    ids: HashMap<i64, Key>,
    /// Every claim that there was, and whose.
    claims: Vec<(Claim, usize)>,
}

/// Fails the sequence with the difference.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Step {
    if is == should { Ok(()) } else { Err(format!("{what}: is {is:?}, should be {should:?}")) }
}

impl Driver {
    pub async fn new() -> Self {
        let direct = Direct::on(&fresh_database().await).await;
        let definition = direct.definition(SCENARIOS).await;
        let leader = direct.store.take_leadership(Duty::Maintenance, ids::new_id()).await.unwrap();
        let mut driver = Self {
            direct,
            leader: leader.expect("nobody else leads"),
            reference: Reference::default(),
            definition,
            runs: Vec::new(),
            nodes: Vec::new(),
            ids: HashMap::new(),
            claims: Vec::new(),
        };
        // Something to begin with.
        driver.register().await;
        driver.register().await;
        driver.start(1, None).await;
        let (_, ids) = read(&driver.direct.db, &driver.runs).await;
        driver.ids = ids;
        driver
    }

    /// Does one operation and compares everything.
    pub async fn step(&mut self, operation: &Operation) -> Step {
        self.reference.now += 1;
        self.run(operation).await?;
        let (seen, ids) = read(&self.direct.db, &self.runs).await;
        self.ids = ids;
        seen.difference(&self.reference.seen()).map_or(Ok(()), Err)
    }

    /// At the end the checker finds nothing either.
    pub async fn finish(self) -> Step {
        let found = self.direct.violations(false, &self.runs).await;
        self.direct.db.close().await;
        // What nobody has rescued yet is no violation of the reference.
        let wrong: Vec<_> = found.into_iter().filter(|v| v.check != "active_without_node").collect();
        same("verify", &wrong, &Vec::new())
    }

    async fn register(&mut self) {
        let id = self.direct.node().await;
        self.nodes.push(Node { id, is_registered: true, is_expired: false, is_draining: false });
    }

    async fn start(&mut self, models: usize, ceiling: Option<i32>) {
        let models = &MODELS[..models];
        self.runs.push(self.direct.start(self.definition, models, ceiling).await);
        let scenarios: Vec<String> = (0..SCENARIOS).map(|i| format!("s{i:03}")).collect();
        self.reference.start(models, &scenarios, ceiling);
    }

    async fn run(&mut self, operation: &Operation) -> Step {
        match *operation {
            Operation::Start { models, ceiling } => {
                self.start(models, ceiling).await;
                Ok(())
            }
            Operation::Register => {
                self.register().await;
                Ok(())
            }
            Operation::Claim { node, kind, slots } => self.claim(node % self.nodes.len(), kind, slots).await,
            Operation::End { active, outcome, later, alone, suspect } => {
                let active = match self.reference.keys(|job| job.state == JobState::Active) {
                    keys if keys.is_empty() => return Ok(()),
                    keys => keys[active % keys.len()].clone(),
                };
                self.end(Ending { key: active, outcome, later, alone, suspect }).await
            }
            Operation::EndLate { claim, wrong } => self.end_late(claim, wrong).await,
            Operation::Expire { node } => self.expire(node % self.nodes.len()).await,
            Operation::Renew { node } => {
                let node = node % self.nodes.len();
                let node = &mut self.nodes[node];
                let lease = self.direct.store.renew_lease(node.id, LEASE).await.unwrap();
                node.is_expired = false;
                let lease = match lease {
                    Beat::Renewed { is_draining, .. } => Some(is_draining),
                    Beat::Lost => None,
                };
                same("lease", &lease, &node.is_registered.then_some(node.is_draining))
            }
            Operation::Drain { node } => {
                let node = node % self.nodes.len();
                self.direct.store.stop_node(self.nodes[node].id).await.unwrap();
                self.nodes[node].is_draining = true;
                Ok(())
            }
            Operation::Rescue => self.rescue().await,
            Operation::Pause { run } => self.act(run, RunAction::Pause, RunChange::Pause, How::Plainly).await,
            Operation::Resume { run } => {
                self.act(run, RunAction::Resume, RunChange::Resume, How::Plainly).await
            }
            Operation::Cancel { run, immediate } => {
                let mode = if immediate { CancelMode::Immediate } else { CancelMode::Graceful };
                self.act(run, RunAction::Cancel, RunChange::Cancel(mode), How::Cancel(mode)).await
            }
            Operation::Priority { run, priority } => {
                let change = RunChange::SetPriority(priority);
                self.act(run, RunAction::SetPriority, change, How::Priority(priority)).await
            }
            Operation::RetryFailed { run } => {
                let run = run % self.runs.len();
                let allow = |head: &RunHead| head.status.allow(RunAction::RetryFailed).map(drop);
                let done = self.direct.store.retry_failed_jobs(self.runs[run], 2, allow).await.unwrap();
                let expected = self.reference.act(run, RunAction::RetryFailed, How::Plainly);
                same("allowed", &done.expect("the run exists").is_ok(), &expected)
            }
            Operation::Analyse { run, kind } => {
                self.act(run, RunAction::StartAnalysis, RunChange::StartAnalysis(kind), How::Analyse(kind))
                    .await
            }
            Operation::CancelJob { job } => self.act_on_job(job, JobChange::Cancel).await,
            Operation::RetryJob { job } => self.act_on_job(job, JobChange::Retry).await,
            Operation::Bury { job } => self.bury(job).await,
            Operation::Redrive => {
                let redrive =
                    Redrive { filter: DeadLetterFilter::default(), per_minute: None, dry_run: false };
                let redriven = self.direct.store.redrive_dead_letters(&redrive, 2).await.unwrap();
                same("redriven", &redriven.redriven, &self.reference.redrive())
            }
            Operation::PauseQueue => {
                self.direct.store.pause_queue("root", None).await.unwrap();
                self.reference.queue_paused = true;
                Ok(())
            }
            Operation::ResumeQueue => {
                self.direct.store.resume_queue().await.unwrap();
                self.reference.queue_paused = false;
                Ok(())
            }
            Operation::Settle => {
                while self.direct.store.settle_closed_lanes(self.leader.term(), 2).await.unwrap() > 0 {}
                Ok(())
            }
        }
    }

    /// Which jobs are taken is the queue's choice; that each may be taken, and that no slot stays free, is not.
    async fn claim(&mut self, place: usize, kind: JobKind, slots: u32) -> Step {
        let node = &self.nodes[place];
        let claimed = self.direct.store.claim_jobs(node.id, &[(kind, slots)]).await.unwrap();
        let may_claim = node.is_registered && !node.is_expired && !node.is_draining;
        if !may_claim {
            return same("claims of a node that may not", &claimed.claims(), &Vec::new());
        }
        if claimed.claims().len() > slots as usize {
            return Err(format!("{} claims for {slots} slots", claimed.claims().len()));
        }
        for claim in &claimed.claims() {
            let key = self.ids[&claim.job_id].clone();
            if kind_of(&key.1) != kind || !self.reference.is_claimable(&key) {
                return Err(format!("{key:?} was claimed: {:?}", self.reference.job(&key)));
            }
            self.reference.claim(&key, place);
            same("number", &claim.number, &self.reference.job(&key).claims)?;
            self.claims.push((*claim, place));
        }
        let waiting = self.reference.keys(|job| job.state == JobState::Pending);
        let left =
            waiting.into_iter().find(|key| kind_of(&key.1) == kind && self.reference.is_claimable(key));
        let is_told_to_come_back = claimed.look_after == Some(Duration::ZERO);
        if claimed.claims().len() < slots as usize && !is_told_to_come_back {
            return same("left though slots are free", &left, &None);
        }
        Ok(())
    }

    fn id(&self, key: &Key) -> i64 {
        *self.ids.iter().find(|(_, k)| *k == key).expect("every job has an id").0
    }

    async fn end(&mut self, mut ending: Ending) -> Step {
        // Only who dies alone can be alone.
        ending.alone &= matches!(ending.outcome, AttemptOutcome::Lost | AttemptOutcome::Failed);
        let job = self.reference.job(&ending.key);
        let (node, number) = (self.nodes[job.node.expect("it is active")].id, job.claims);
        let claim = Claim { job_id: self.id(&ending.key), number };
        let mut attempt = end(claim, kind_of(&ending.key.1), ending.outcome);
        (attempt.alone, attempt.suspect) = (ending.alone, ending.suspect);
        if ending.later {
            attempt.delay = Duration::from_secs(3_600);
        }
        let state = self.direct.end(node, attempt).await;
        // Computed anew, an analysis waits again by the time that anybody looks.
        let before = self.reference.job(&ending.key).claims;
        self.reference.end(std::slice::from_ref(&ending));
        same("on time", &state.is_some(), &true)?;
        same("claims", &self.reference.job(&ending.key).claims, &before)
    }

    /// An end under any claim but the one that holds now.
    async fn end_late(&self, claim: usize, wrong: Wrong) -> Step {
        let active = self.reference.keys(|job| job.state == JobState::Active);
        let key = active.get(claim % active.len().max(1));
        let held = key.map(|key| (self.id(key), self.reference.job(key)));
        let (claim, node) = match (wrong, held) {
            (Wrong::Number(shift), Some((job_id, job))) => {
                (Claim { job_id, number: job.claims + shift }, job.node.expect("it is active"))
            }
            (Wrong::Node, Some((job_id, job))) => {
                let node = (job.node.expect("it is active") + 1) % self.nodes.len();
                (Claim { job_id, number: job.claims }, node)
            }
            (Wrong::Old, _) if !self.claims.is_empty() => self.claims[claim % self.claims.len()],
            _ => return Ok(()),
        };
        let key = &self.ids[&claim.job_id];
        let job = self.reference.job(key);
        if job.state == JobState::Active && job.claims == claim.number && job.node == Some(node) {
            return Ok(());
        }
        let state = self
            .direct
            .end(self.nodes[node].id, end(claim, kind_of(&key.1), AttemptOutcome::Completed))
            .await;
        same("a late end", &state, &None)
    }

    async fn expire(&mut self, node: usize) -> Step {
        let node = &mut self.nodes[node];
        sqlx::query("update node set lease_until = clock_timestamp() - interval '1 second' where id = $1")
            .bind(node.id)
            .execute(&self.direct.db)
            .await
            .unwrap();
        node.is_expired = true;
        Ok(())
    }

    async fn rescue(&mut self) -> Step {
        let rescued = self.direct.store.rescue_jobs(Duration::from_millis(1)).await.unwrap();
        let mut dead: Vec<usize> = (0..self.nodes.len())
            .filter(|&i| self.nodes[i].is_registered && self.nodes[i].is_expired)
            .collect();
        dead.sort_unstable_by_key(|&i| self.nodes[i].id);
        let mut lost = 0;
        for place in dead {
            self.nodes[place].is_registered = false;
            let keys = self.reference.keys(|job| job.state == JobState::Active && job.node == Some(place));
            lost += keys.len();
            let endings: Vec<Ending> = keys
                .into_iter()
                .map(|key| Ending {
                    key,
                    outcome: AttemptOutcome::Lost,
                    later: false,
                    alone: false,
                    suspect: false,
                })
                .collect();
            self.reference.end(&endings);
        }
        same("rescued", &rescued.len(), &lost)
    }

    async fn act(&mut self, run: usize, action: RunAction, change: RunChange, how: How) -> Step {
        let run = run % self.runs.len();
        let done = self
            .direct
            .store
            .control_run(self.runs[run], change, move |head| head.status.allow(action).map(drop))
            .await
            .unwrap()
            .expect("the run exists");
        same("allowed", &done.is_ok(), &self.reference.act(run, action, how))
    }

    async fn bury(&mut self, job: usize) -> Step {
        let keys = self.reference.keys(|_| true);
        let key = &keys[job % keys.len()];
        let id = self.id(key);
        let allow = move |head: &JobHead| head.state.allow_burial(id).map_err(drop);
        let done = self.direct.store.bury_job(id, "on purpose", json!({}), allow).await.unwrap();
        same("allowed", &done.expect("the job exists").is_ok(), &self.reference.bury_job(key))
    }

    async fn act_on_job(&mut self, job: usize, change: JobChange) -> Step {
        let keys = self.reference.keys(|_| true);
        let key = &keys[job % keys.len()];
        let id = self.id(key);
        let done = self
            .direct
            .store
            .control_job(id, change, move |head| match change {
                JobChange::Cancel => head.state.allow_cancel(id).map_err(drop),
                JobChange::Retry => {
                    head.state.allow_retry(id).map_err(drop)?;
                    let takes = head.run.status.allow(RunAction::RetryFailed).is_ok();
                    if takes || head.kind.is_analysis() { Ok(()) } else { Err(()) }
                }
            })
            .await
            .unwrap()
            .expect("the job exists");
        let expected = match change {
            JobChange::Cancel => self.reference.cancel_job(key),
            JobChange::Retry => self.reference.retry_job(key),
        };
        same("allowed", &done.is_ok(), &expected)
    }
}
