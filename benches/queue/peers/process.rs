//! The programs of the peers, which `make peers` builds, and what the bench says to them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a peer may take for one phase.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a peer is written in, and its program.
#[derive(Clone, Copy)]
pub enum Program {
    /// A binary of `benches/peers/rust`.
    Rust(&'static str),
    /// A module of `benches/peers/node`.
    Node(&'static str),
    /// A script of `benches/peers/python`.
    Python(&'static str),
}

impl Program {
    /// The program and its first arguments.
    pub fn command(self) -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let peers = root.join("benches/peers");
        match self {
            Self::Rust(name) => vec![root.join("target/peers/release").join(name)],
            Self::Node(name) => vec![node(&peers.join("node/node_modules")), peers.join("node").join(name)],
            Self::Python(name) => {
                vec![peers.join("python/.venv/bin/python"), peers.join("python").join(name)]
            }
        }
    }

    /// Whether `make peers` has been here.
    pub fn is_built(self) -> bool {
        self.command().iter().all(|path| path.exists())
    }
}

/// The Node.js that npm installs, for those on PATH are often too old for the peers.
fn node(modules: &Path) -> PathBuf {
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
    modules.join(format!("node-linux-{arch}/bin/node"))
}

/// What a peer says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Ready {
        #[expect(dead_code, reason = "that it is there says it")]
        ready: bool,
    },
    Answer(Answer),
}

/// What a peer has done.
#[derive(Deserialize)]
pub struct Answer {
    /// Jobs inserted, or whose handlers have begun.
    pub jobs: u64,
    /// From just before the call that sends a job to the first line of its handler.
    #[serde(default)]
    pub microseconds: Vec<u64>,
}

/// A running peer. It is killed with this value.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a peer and waits until it has prepared a phase.
    pub async fn start(
        program: Program,
        phase: &str,
        jobs: u64,
        environment: &[(&str, String)],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let command = program.command();
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(phase)
            .env("JOBS", jobs.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take().context("a pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut process = Self { child, stdin, stdout };
        match process.line().await? {
            Line::Ready { .. } => Ok(process),
            Line::Answer(_) => bail!("an answer before the question"),
        }
    }

    /// The operating system's id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the peer has ended")
    }

    /// Has it do what it has prepared.
    pub async fn go(&mut self) -> anyhow::Result<Answer> {
        self.stdin.write_all(b"go\n").await?;
        match self.line().await? {
            Line::Answer(answer) => Ok(answer),
            Line::Ready { .. } => bail!("ready twice"),
        }
    }

    /// Ends it and waits until it has.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<Line> {
        let line =
            tokio::time::timeout(PATIENCE, self.stdout.next_line()).await.context("it says nothing")??;
        let line = line.context("it ended without a word")?;
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }
}
