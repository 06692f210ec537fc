//! A `runlane` process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::procs::{self, Process};

/// How long a node may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, and what it has logged so far (all but the lines of single jobs).
pub struct Node {
    child: Child,
    pid: u32,
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Node {
    /// Starts `runlane` with these arguments; its log also goes to `log`.
    pub async fn start(
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
        command
            .args(arguments)
            .env_clear()
            .envs(
                std::env::vars().filter(|(name, _)| matches!(&**name, "PATH" | "HOME" | "LLVM_PROFILE_FILE")),
            )
            .envs(environment)
            .current_dir(log.parent().context("a log is in a directory")?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = runlane::process::spawn(command, Signal::SIGKILL).await?;
        let pid = child.id().context("it runs")?;
        let mut read = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let mut file = File::options().create(true).append(true).open(log)?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let to = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = read.next_line().await {
                // The file is for people; the test goes by the lines.
                drop(writeln!(file, "{line}"));
                let mut lines = to.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line);
                sender.send_replace(lines.len());
            }
        });
        Ok(Self { child, pid, lines, count })
    }

    /// The operating system's number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line with this text, from line number `from` on; returns it and the number of the line after it.
    pub async fn logs(&mut self, text: &str, from: usize) -> anyhow::Result<(String, usize)> {
        let found = async {
            let mut next = from;
            loop {
                {
                    let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                    while let Some(line) = lines.get(next) {
                        next += 1;
                        if line.contains(text) {
                            return Ok((line.clone(), next));
                        }
                    }
                }
                if self.count.changed().await.is_err() {
                    bail!("the node ended without saying {text:?}");
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .with_context(|| format!("the node never said {text:?}"))?
    }

    /// How many lines it has logged.
    pub fn logged(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many of its lines have this text.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until it has registered as a node.
    pub async fn registered(&mut self) -> anyhow::Result<()> {
        self.logs("node registered", 0).await.map(drop)
    }

    /// Where it serves.
    pub async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        let (line, _) = self.logs("listening address=", 0).await?;
        let address = line.rsplit("address=").next().context("the line says where")?;
        Ok(address.trim().parse()?)
    }

    /// Its processes, and theirs.
    pub fn workers(&self) -> Vec<Process> {
        procs::descendants(self.pid)
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.pid.cast_signed()), signal)?)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    pub async fn ended(mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        Ok(tokio::time::timeout(patience, self.child.wait()).await.context("the node does not end")??)
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.ended(PATIENCE).await.map(drop)
    }
}
