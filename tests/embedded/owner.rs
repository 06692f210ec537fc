//! Another process that owns a cluster: this test binary again, running one test that only waits.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use runlane::embedded::Cluster;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::postgres::throw_away_in;

const DATA_DIR: &str = "RUNLANE_TEST_OWNER_OF";
const READY: &str = "the cluster is ready: ";
const REFUSED: &str = "the cluster is refused: ";

/// The other process; killed when dropped.
pub struct Owner {
    process: Child,
    said: BufReader<ChildStdout>,
    pub server: u32,
    pub url: String,
}

impl Owner {
    /// Starts an owner of `data_dir`.
    pub async fn start(data_dir: &Path) -> Self {
        Self::start_by(command(&this_binary(), data_dir)).await
    }

    pub async fn start_by(command: Command) -> Self {
        let (process, said, answer) = launch(command).await;
        let fields = answer.strip_prefix(READY).unwrap_or_else(|| panic!("{answer}"));
        let (server, url) = fields.split_once(' ').expect("two fields");
        Self { process, said, server: server.parse().expect("a process number"), url: url.to_owned() }
    }

    /// SIGKILL, and the end of the process.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Lets the owner stop its cluster and end.
    pub async fn end(mut self) {
        drop(self.process.stdin.take());
        // Its last words need a reader.
        self.said.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(self.process.wait().await.unwrap().success());
    }
}

pub fn this_binary() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What runs an owner of `data_dir`, from the test binary `program`.
pub fn command(program: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["embedded::owner::owns_a_cluster_until_its_input_ends", "--exact", "--ignored", "--nocapture"])
        .env(DATA_DIR, data_dir)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts `command` and reads its one answer.
pub async fn launch(mut command: Command) -> (Child, BufReader<ChildStdout>, String) {
    let mut process = command.spawn().unwrap();
    let mut said = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    while said.read_line(&mut line).await.unwrap() > 0 {
        // The test harness writes the test's name before it, on the same line.
        if let Some(at) = line.find(READY).or_else(|| line.find(REFUSED)) {
            return (process, said, line[at..].trim_end().to_owned());
        }
        line.clear();
    }
    panic!("the owner ended without an answer: {:?}", process.wait().await);
}

#[tokio::test]
#[ignore = "the body of a process that other tests start and kill"]
async fn owns_a_cluster_until_its_input_ends() {
    let Some(data_dir) = std::env::var_os(DATA_DIR) else { return };
    match Cluster::start(&throw_away_in(data_dir.into())).await {
        Ok(cluster) => {
            println!("{READY}{} {}", cluster.pid(), cluster.url());
            tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
            cluster.stop().await.unwrap();
        }
        Err(error) => println!("{REFUSED}{error}"),
    }
}
