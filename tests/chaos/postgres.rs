//! A PostgreSQL of one test, which can be killed and started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::config::Config;
use runlane::embedded::{Cluster, Settings};

use super::procs;

/// The server and how it is started again.
pub struct Postgres {
    settings: Settings,
    cluster: Option<Cluster>,
    url: String,
}

impl Postgres {
    /// Makes a cluster in `dir` and starts its server, durable as in production.
    pub async fn start(dir: &Path, options: &[(&str, &str)]) -> anyhow::Result<Self> {
        let lookup =
            |name: &str| name.starts_with("RUNLANE_POSTGRES_").then(|| std::env::var(name).ok()).flatten();
        let mut config = Config::from_lookup(&lookup)?;
        config.python = super::stage::python()?;
        config.numbers.postgres_shared_buffers_mb = 64;
        let mut settings = Settings { data_dir: dir.to_owned(), ..Settings::from_config(&config) };
        // Shared memory in the cluster's own files goes when they go, though its server was killed.
        settings.options.push(("dynamic_shared_memory_type".into(), "mmap".into()));
        settings.options.extend(options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let cluster = Cluster::start(&settings).await?;
        let url = cluster.url().to_owned();
        Ok(Self { settings, cluster: Some(cluster), url })
    }

    /// Where it answers, also after it was started again.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.cluster.as_ref().context("PostgreSQL does not run")?.pid())
    }

    /// Processor time that the server and its processes have used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let pid = self.pid()?;
        Ok(procs::cpu(pid)
            + procs::descendants(pid).iter().map(|process| procs::cpu(process.pid)).sum::<Duration>())
    }

    fn log_file(&self) -> anyhow::Result<PathBuf> {
        let cluster = self.cluster.as_ref().context("PostgreSQL does not run")?;
        Ok(cluster.data().with_file_name("postgres.log"))
    }

    /// How long the server's log is by now.
    pub fn log_length(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read(self.log_file()?)?.len())
    }

    /// What the server has logged between two lengths of its log.
    pub fn log(&self, from: usize, to: usize) -> anyhow::Result<String> {
        let log = std::fs::read(self.log_file()?)?;
        Ok(String::from_utf8_lossy(log.get(from..to).context("the log has shrunk")?).into_owned())
    }

    /// Kills every process of the server at once, as a crash of its machine does.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        // The server first, so that it neither notices nor replaces the others.
        let others = procs::descendants(pid);
        signal(pid, Signal::SIGKILL)?;
        for process in &others {
            signal(process.pid, Signal::SIGKILL)?;
        }
        let mut cluster = self.cluster.take().context("PostgreSQL does not run")?;
        cluster.exited().await?;
        Ok(())
    }

    /// Starts the server after a crash; returns when it takes connections.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.cluster = Some(Cluster::start(&self.settings).await?);
        Ok(())
    }

    /// Shuts the server down.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        match self.cluster.take() {
            Some(cluster) => Ok(cluster.stop().await?),
            None => Ok(()),
        }
    }
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    match kill(Pid::from_raw(pid.cast_signed()), signal) {
        // It ended by itself meanwhile.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("{signal} to {pid}")),
    }
}
