//! What the executor's tests share: real Python processes that follow each job's script.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use runlane::domain::JobKind;
use runlane::domain::job::Claim;
use runlane::executor::{Executor, Finished, Job, Outcome, Payload, Settings, Stop};
use runlane::process::Limits;
use serde_json::{Value, json};

/// A bound on what should happen soon: reached only when a test fails.
pub const BOUND: Duration = Duration::from_secs(60);
/// A grace that is meant to run out.
pub const SHORT: Duration = Duration::from_millis(60);

fn python() -> &'static OsString {
    static PYTHON: OnceLock<OsString> = OnceLock::new();
    PYTHON.get_or_init(|| {
        // A version manager's shim costs 100 ms a start: ask it once for the real one.
        let output = std::process::Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .expect("python3 is installed");
        String::from_utf8(output.stdout).expect("a path").trim().to_owned().into()
    })
}

pub fn script(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executor/workers").join(name).into()
}

/// Settings whose graces do not run out within a test that works. `mode` is how `play.py` starts.
pub fn settings(mode: &str) -> Settings {
    Settings {
        worker_command: vec![
            python().clone(),
            "-I".into(),
            "-S".into(),
            script("play.py"),
            mode.to_owned().into(),
        ],
        serve_arguments: vec!["--serve".into()],
        environment: vec![("PATH".into(), std::env::var_os("PATH").expect("PATH is set"))],
        providers: BTreeMap::new(),
        secrets: Vec::new(),
        warm_workers: 1,
        one_shot_workers: 4,
        start_timeout: BOUND,
        restart_base: Duration::from_millis(1),
        restart_max: Duration::from_millis(10),
        line_max_bytes: 1 << 20,
        stderr_max_bytes: 1_000,
        queue_max_bytes: 1 << 16,
        cancel_grace: BOUND,
        term_grace: BOUND,
        limits: Limits::default(),
        work_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("work"),
    }
}

/// Settings for workers that do not answer: all graces are short.
pub fn impatient(mode: &str) -> Settings {
    Settings { cancel_grace: SHORT, term_grace: SHORT, ..settings(mode) }
}

pub fn job(number: i64, act: &Value) -> Job {
    kind_job(JobKind::ProbeScenario, number, act)
}

pub fn kind_job(kind: JobKind, number: i64, act: &Value) -> Job {
    let job_id = format!("job-{number}");
    let mut request =
        json!({ "v": 1, "type": "job", "kind": kind.as_str(), "jobId": job_id, "runId": "r", "attempt": 1 });
    for (key, value) in act.as_object().expect("an act is an object") {
        request[key] = value.clone();
    }
    Job {
        claim: Claim { job_id: number, number: 1 },
        kind,
        provider: None,
        request: request.to_string().into_bytes(),
        job_id,
        deadline: BOUND * 10,
        alone: false,
        may_be_unchanged: false,
    }
}

pub fn alone(number: i64, act: &Value) -> Job {
    Job { alone: true, ..job(number, act) }
}

pub async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND * 2, work).await.expect("it ends long before its bound")
}

pub async fn run(executor: &Executor, job: Job) -> Finished {
    bounded(executor.run(job, Stop::never())).await
}

/// Runs all at once; outcomes in the order of the jobs.
pub async fn run_all(executor: &Executor, jobs: Vec<Job>) -> Vec<Finished> {
    let claims: Vec<Claim> = jobs.iter().map(|job| job.claim).collect();
    let runs = jobs.into_iter().map(|job| executor.run(job, Stop::never()));
    let all = bounded(futures_util::future::join_all(runs)).await;
    assert_eq!(all.iter().map(|f| f.claim).collect::<Vec<_>>(), claims);
    all
}

pub fn completed(finished: &Finished) -> bool {
    matches!(finished.outcome, Outcome::Completed(_))
}

/// The `response` of the first turn.
pub fn response(finished: &Finished) -> String {
    let Outcome::Completed(Payload::Transcript(transcript)) = &finished.outcome else {
        panic!("{finished:?}")
    };
    let turns: Value = serde_json::from_str(transcript.turns.get()).expect("turns are JSON");
    turns[0]["response"].as_str().expect("a response").to_owned()
}

/// Ends the executor and checks that no process of it is left, not even as a zombie.
pub async fn finish(executor: &Executor, pids: impl IntoIterator<Item = Option<u32>>) {
    bounded(executor.shutdown()).await;
    assert_eq!(executor.snapshot().processes, 0);
    for pid in pids.into_iter().flatten() {
        assert_gone(pid);
    }
}

/// No child of this process has the number any more.
pub fn assert_gone(pid: u32) {
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        let after_name = stat.rsplit(')').next().expect("a name in brackets");
        let parent = after_name.split_whitespace().nth(1).expect("a parent");
        assert_ne!(parent, std::process::id().to_string(), "process {pid} is still a child: {stat}");
    }
}

/// A FIFO: read to its end, it tells who opened it, and that all who did have ended.
pub struct Fifo {
    pub path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Fifo {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        Self { path, _directory: directory }
    }

    /// Waits for a writer.
    pub async fn open(&self) -> tokio::fs::File {
        bounded(tokio::fs::File::open(self.path.clone())).await.expect("a readable FIFO")
    }
}

/// Waits until every writer is dead.
pub async fn ended(mut fifo: tokio::fs::File) {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    bounded(fifo.read_to_string(&mut text)).await.expect("readable");
}

/// The pid that the writer told, as soon as it did.
pub async fn told(fifo: &mut tokio::fs::File) -> u32 {
    use tokio::io::AsyncReadExt;
    let mut bytes = [0; 20];
    let n = bounded(fifo.read(&mut bytes)).await.expect("readable");
    std::str::from_utf8(&bytes[..n]).expect("digits").parse().expect("a pid")
}
