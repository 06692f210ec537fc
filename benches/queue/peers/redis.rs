//! A Redis of the benches' own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running `redis-server`, on a socket. It is killed with this value.
pub struct Redis {
    child: Child,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Redis {
    /// Starts one that writes every change to its file and syncs it as told; none if there is no `redis-server`.
    pub async fn start(dir: &Path, sync: &str) -> anyhow::Result<Option<Self>> {
        let data = dir.join(format!("redis-{sync}"));
        std::fs::create_dir_all(&data)?;
        let socket = data.join("redis.sock");
        let started = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--appendfsync", sync, "--save", ""])
            .args(["--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", "", "--dir"])
            .arg(&data)
            .arg("--unixsocket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            started => started.context("cannot start redis-server")?,
        };
        let mut log = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        while let Some(line) = log.next_line().await? {
            if line.contains("eady to accept connections") {
                // What else it says is read, so that it never waits for a reader.
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                return Ok(Some(Self { child, socket }));
            }
        }
        bail!("redis-server ended with {}", child.wait().await?)
    }

    /// The operating system's id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("redis-server has ended")
    }

    /// Ends it and removes its file.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        std::fs::remove_dir_all(self.socket.parent().context("a directory")?)?;
        Ok(())
    }
}
