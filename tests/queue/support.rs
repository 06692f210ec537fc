//! What the tests of the queue ask the database, and nodes that are processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::support::app::{Cluster, PATIENCE};

/// Settings under which nothing that goes wrong waits long.
pub const QUICK: [(&str, &str); 4] = [
    ("RUNLANE_RETRY_BASE_MS_PROBE_SCENARIO", "10"),
    ("RUNLANE_WORKER_CANCEL_GRACE_MS", "100"),
    ("RUNLANE_WORKER_TERM_GRACE_MS", "100"),
    ("RUNLANE_SHUTDOWN_GRACE_MS", "0"),
];

/// These settings and [`QUICK`].
pub fn quick<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    QUICK.iter().chain(more).copied().collect()
}

/// One attempt on record.
#[derive(Debug, Clone, FromRow)]
pub struct Attempt {
    pub job_id: i64,
    pub run_id: Uuid,
    pub model: Option<String>,
    pub number: i32,
    pub node_id: Uuid,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub outcome: String,
    pub error_code: Option<String>,
    pub stderr_tail: Option<String>,
}

/// The probes' attempts on record, in the order of their claims.
pub async fn attempts(db: &PgPool) -> Vec<Attempt> {
    sqlx::query_as(
        "select a.job_id, l.run_id, l.model, a.number, a.node_id, a.started_at, a.ended_at,
                a.outcome::text as outcome, a.error_code, a.stderr_tail
           from attempt a join current_job j on j.id = a.job_id join lane l on l.id = j.lane_id
          where l.kind = 'probe:scenario'
          order by a.started_at, a.job_id, a.number",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

/// One probe as its row has it.
#[derive(Debug, Clone, FromRow)]
pub struct Job {
    pub id: i64,
    pub model: String,
    pub state: String,
    pub claims: i32,
    pub failures: i16,
    pub losses: i16,
    pub losses_alone: i16,
    pub throttles: i32,
    pub error_code: Option<String>,
}

/// The probes of a run, in the order of their ids.
pub async fn jobs(db: &PgPool, run: &str) -> Vec<Job> {
    sqlx::query_as(
        "select j.id, l.model, j.state::text as state, j.claims, j.failures, j.losses, j.losses_alone, j.throttles,
                j.error_code
           from current_job j join lane l on l.id = j.lane_id
          where l.run_id = $1::uuid and l.kind = 'probe:scenario'
          order by j.id",
    )
    .bind(run)
    .fetch_all(db)
    .await
    .unwrap()
}

/// The outcomes of the only job's attempts.
pub async fn outcomes(db: &PgPool) -> Vec<String> {
    let attempts = attempts(db).await;
    let numbers: Vec<i32> = attempts.iter().map(|a| a.number).collect();
    assert_eq!(numbers, (1..=attempts.len() as i32).collect::<Vec<_>>(), "numbers have no gap");
    attempts.into_iter().map(|a| a.outcome).collect()
}

/// What must hold of every run at rest: counters are the sums over job rows, and every claim has its attempt.
pub async fn assert_books_balance(db: &PgPool) {
    let wrong: Vec<(i64, String)> = sqlx::query_as(
        "select l.id, format('%s of lane %s: counted %s, rows %s', s.state, l.id, s.counted, s.rows)
           from lane l
          cross join lateral (
             select 'pending' as state, l.pending as counted,
                    count(*) filter (where j.state = 'pending' and l.is_open) as rows
               from current_job j where j.lane_id = l.id
             union all
             select 'active', l.active, count(*) filter (where j.state = 'active') from current_job j where j.lane_id = l.id
             union all
             select 'completed', l.completed, count(*) filter (where j.state = 'completed') from current_job j where j.lane_id = l.id
             union all
             select 'failed', l.failed, count(*) filter (where j.state = 'failed') from current_job j where j.lane_id = l.id
             union all
             select 'cancelled', l.cancelled,
                    count(*) filter (where j.state = 'cancelled' or j.state = 'pending' and not l.is_open)
               from current_job j where j.lane_id = l.id
          ) as s
          where s.counted <> s.rows
         union all
         select j.id, format('job %s: %s claims, %s attempts', j.id, j.claims, count(a.number))
           from current_job j left join attempt a on a.job_id = j.id
          where j.state <> 'active'
          group by j.id, j.claims having count(a.number) <> j.claims or coalesce(max(a.number), 0) <> j.claims
         union all
         select j.id, format('job %s is %s with %s transcripts', j.id, j.state, count(t.job_id))
           from current_job j join lane l on l.id = j.lane_id left join transcript t on t.job_id = j.id
          where l.kind = 'probe:scenario'
          group by j.id, j.state having count(t.job_id) <> (j.state = 'completed')::int
         union all
         select l.id, format('lane_error of lane %s: %s counted, %s failed', l.id,
                             coalesce((select sum(e.failed) from lane_error e where e.lane_id = l.id), 0), l.failed)
           from lane l
          where l.failed <> coalesce((select sum(e.failed) from lane_error e where e.lane_id = l.id), 0)",
    )
    .fetch_all(db)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Waits until this SQL condition holds.
pub async fn until_sql(db: &PgPool, what: &str, condition: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let query = format!("select coalesce(({condition}), false)");
    loop {
        if sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(query.as_str())).fetch_one(db).await.unwrap() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "not {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A node that is a process of its own. Killed when dropped.
pub struct Node {
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    is_over: bool,
}

impl Node {
    /// Starts `runlane <command>` with the cluster's settings and these over them; logs as JSON.
    pub fn start(cluster: &Cluster, command: &str, settings: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_runlane"));
        let temporary = std::env::temp_dir();
        process
            .arg(command)
            .current_dir(temporary)
            .envs(cluster.environment())
            .env("RUNLANE_LOG_FORMAT", "json")
            .env("RUNLANE_LOG", "info")
            .env_remove("FAILPOINTS")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines() {
                writer.0.lock().unwrap().lines.push(line.unwrap());
                writer.1.notify_all();
            }
            writer.0.lock().unwrap().is_over = true;
            writer.1.notify_all();
        });
        let node = Self { child, log };
        node.until_logged("node registered");
        node
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with this text; returns it.
    pub fn until_logged(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = log.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !log.is_over, "no {text:?} in:\n{}", log.lines.join("\n"));
            log = self.log.1.wait_timeout(log, left).unwrap().0;
        }
    }

    /// Whether a line with this text was logged by now.
    pub fn logged(&self, text: &str) -> bool {
        self.log.0.lock().unwrap().lines.iter().any(|line| line.contains(text))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Waits for the end; returns how it ended and every line that it logged.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        let mut log = self.log.0.lock().unwrap();
        while !log.is_over {
            log = self.log.1.wait(log).unwrap();
        }
        (status, std::mem::take(&mut log.lines))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Log lines as JSON objects.
pub fn parsed(lines: &[String]) -> Vec<Map<String, Value>> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Processes whose parent is `parent`.
pub fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<u32>() else { continue };
        // A process may end while we look.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let after = stat.rsplit_once(") ").unwrap().1;
        if after.split(' ').nth(1).unwrap().parse::<u32>().unwrap() == parent {
            found.push(pid);
        }
    }
    found
}

/// Whether a process with this id runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}
