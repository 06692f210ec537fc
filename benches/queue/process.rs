//! Processes of the program: nodes and servers, and their memory.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::config::Config;

use crate::stage::{Client, Database, Stage};

/// A `runlane` process. It ends with this value, also when the bench fails.
pub struct Node {
    child: Child,
}

impl Node {
    /// Starts one that executes jobs only.
    pub fn start(stage: &Stage, database: &Database, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::spawn(stage, &["work"], database.environment(more))
    }

    /// Starts one that serves the API only, and waits until it does.
    pub async fn serve(stage: &Stage, database: &Database) -> anyhow::Result<(Self, Client)> {
        // Nobody else asks for a port here between this and its start.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let environment = database.environment(&[("RUNLANE_LISTEN", &address.to_string())]);
        let config = Config::from_lookup(&|name| environment.get(name).cloned())?;
        let client = Client::new(address, &config)?;
        let node = Self::spawn(stage, &["serve", "--execute", "false"], environment)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < deadline, "the server does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok((node, client))
    }

    fn spawn(
        stage: &Stage,
        arguments: &[&str],
        environment: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_runlane"))
            .args(arguments)
            .envs(environment)
            .current_dir(stage.dir())
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    /// The operating system's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory in bytes.
    pub fn resident(&self) -> anyhow::Result<f64> {
        resident(self.pid())
    }

    /// The most memory that it has had, in bytes, since its peak was forgotten.
    pub fn peak(&self) -> anyhow::Result<f64> {
        status_bytes(self.pid(), "VmHWM:")
    }

    /// Has the peak of its memory start anew.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        // The kernel's code for just that.
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the node ended with {status}");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let ended = self.child.try_wait().and_then(|status| match status {
            Some(_) => Ok(()),
            None => self.child.kill().and_then(|()| self.child.wait()).map(drop),
        });
        if let Err(error) = ended {
            eprintln!("the node cannot be ended: {error}");
        }
    }
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> anyhow::Result<f64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("its memory")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}
