//! What one test plays on: its PostgreSQL, its nodes, its directory.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::process::Command;
use uuid::Uuid;

use super::client::{Client, SECRET};
use super::node::Node;
use super::plan::Plan;
use super::postgres::Postgres;
use super::procs::Left;

/// How long a test waits for what must happen in the end. It bounds failures; it is no timing.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A PostgreSQL and what runs on it.
pub struct Stage {
    /// How much, how long.
    pub plan: Plan,
    /// The database.
    pub postgres: Postgres,
    /// The test's own connections.
    pub db: PgPool,
    dir: PathBuf,
    logs: PathBuf,
    nodes: AtomicU32,
    settings: BTreeMap<String, String>,
}

impl Stage {
    /// A fresh PostgreSQL with the schema in it; nodes get these settings besides.
    pub async fn begin(plan: Plan, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::begin_with(plan, name, &[], settings).await
    }

    /// The same with options of PostgreSQL's own.
    pub async fn begin_with(
        plan: Plan,
        name: &str,
        options: &[(&str, &str)],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let dir = root().join(name);
        make(&dir)?;
        let postgres = Postgres::start(&dir, options).await?;
        Self::on(plan, name, dir, postgres, settings).await
    }

    /// The same on a PostgreSQL that is there already; the test's own files are in `dir`.
    pub async fn on(
        plan: Plan,
        name: &str,
        dir: PathBuf,
        postgres: Postgres,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        make(&dir)?;
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos").join(name);
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let db = PgPoolOptions::new()
            .max_connections(6)
            .acquire_timeout(Duration::from_secs(60))
            .connect(postgres.url())
            .await?;
        runlane::store::migrate(&db).await?;
        let python = python()?.to_string_lossy().into_owned();
        let settings = [
            ("DATABASE_URL", postgres.url()),
            ("RUNLANE_LISTEN", "127.0.0.1:0"),
            ("RUNLANE_JWT_SECRET", SECRET),
            ("RUNLANE_PYTHON", &python),
            ("RUNLANE_LEASE_MS", &plan.lease_ms().to_string()),
            ("RUNLANE_LEASE_RENEWAL_MS", &plan.renewal_ms().to_string()),
            ("RUNLANE_API_POOL_SIZE", "8"),
            ("RUNLANE_ORCHESTRATOR_POOL_SIZE", "3"),
            ("RUNLANE_WORKER_CONCURRENCY", "8"),
            ("RUNLANE_WARM_WORKERS", "1"),
            ("RUNLANE_SHUTDOWN_GRACE_MS", "2000"),
            // The lines of single jobs would be most of the log.
            ("RUNLANE_LOG", "info,runlane::orchestrator::claiming=warn,runlane::orchestrator::writing=warn"),
        ]
        .into_iter()
        .chain(settings.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        Ok(Self { plan, postgres, db, dir, logs, nodes: AtomicU32::new(0), settings })
    }

    /// Starts a node with these arguments, and these settings over the stage's.
    pub async fn node(&self, arguments: &[&str], more: &[(&str, &str)]) -> anyhow::Result<Node> {
        let mut all = self.settings.clone();
        all.extend(more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let log = self.logs.join(format!("node-{:03}.log", self.nodes.fetch_add(1, Ordering::Relaxed)));
        Node::start(arguments, &all, &log).await
    }

    /// Starts a node that only executes; returns when it has registered.
    pub async fn worker(&self, more: &[(&str, &str)]) -> anyhow::Result<Node> {
        let mut node = self.node(&["work"], more).await?;
        node.registered().await?;
        Ok(node)
    }

    /// Starts a node that only serves, and a client of it.
    pub async fn api(&self) -> anyhow::Result<(Node, Client)> {
        let mut node = self.node(&["serve", "--execute=false"], &[]).await?;
        let client = Client::new(vec![node.address().await?])?;
        Ok((node, client))
    }

    /// The time, as the database has it: the only one that counts.
    pub async fn now(&self) -> anyhow::Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.db).await?)
    }

    /// The id under which a process is registered now, if it is.
    pub async fn node_id(&self, node: &Node) -> anyhow::Result<Option<Uuid>> {
        let sql = "select id from node where name like '%:' || $1 order by started_at desc limit 1";
        Ok(sqlx::query_scalar(sql).bind(node.pid().to_string()).fetch_optional(&self.db).await?)
    }

    /// What `runlane verify` says of the database at rest, and of these runs, which must be there.
    pub async fn verify(&self, runs: &[String]) -> anyhow::Result<String> {
        let expected = self.dir.join("runs");
        std::fs::write(&expected, runs.iter().map(|run| format!("{run}\n")).collect::<String>())?;
        let output = Command::new(env!("CARGO_BIN_EXE_runlane"))
            .args(["verify", "--quiescent", "--json", "--expect-runs"])
            .arg(&expected)
            .env_clear()
            .envs(&self.settings)
            .env("RUNLANE_LOG", "error")
            .output()
            .await?;
        // 1 says that something is wrong, which is then said too.
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "verify: {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until nothing waits or runs any more, analyses included.
    pub async fn quiet(&self) -> anyhow::Result<()> {
        let quiet = "select not exists (select from lane where is_live)";
        let Err(error) = self.until("nothing waits or runs", quiet, PATIENCE).await else { return Ok(()) };
        let left: Vec<String> = sqlx::query_scalar(
            "select format('%s %s jobs of lane %s (%s, run %s, open: %s), claims %s to %s, due %s to %s, nodes %s',
                           count(*), j.state, l.id, l.kind, r.status, l.is_open, min(j.claims), max(j.claims),
                           min(j.run_at) - clock_timestamp(), max(j.run_at) - clock_timestamp(), array_agg(distinct j.node_id))
               from lane l join run r on r.id = l.run_id join current_job j on j.lane_id = l.id
              where l.is_live and j.state in ('pending', 'active')
              group by l.id, r.id, j.state",
        )
        .fetch_all(&self.db)
        .await?;
        let nodes: Vec<String> =
            sqlx::query_scalar("select format('%s (%s, draining: %s)', id, name, is_draining) from node")
                .fetch_all(&self.db)
                .await?;
        Err(error.context(format!("{left:#?} on {nodes:#?}")))
    }

    /// Waits until a condition holds in the database.
    pub async fn until(&self, what: &str, sql: &'static str, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&self.db).await? {
            ensure!(Instant::now() < deadline, "in vain for {patience:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops nodes in order; `left` notes what they could leave behind.
    pub async fn stop(&self, nodes: impl IntoIterator<Item = Node>, left: &mut Left) -> anyhow::Result<()> {
        for node in nodes {
            left.note(node.pid());
            node.signal(Signal::SIGTERM)?;
            let status = node.ended(Duration::from_secs(15)).await?;
            ensure!(status.success(), "a node that was asked to stop ended with {status}");
        }
        Ok(())
    }

    /// Stops PostgreSQL and removes everything but the logs.
    pub async fn end(self) -> anyhow::Result<()> {
        self.db.close().await;
        self.postgres.stop().await?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

/// The interpreter of the Python environment that `make` prepares.
pub fn python() -> anyhow::Result<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/.venv/bin/python");
    ensure!(python.exists(), "python/.venv is missing: run `make python`");
    Ok(python)
}

/// The directory of this process, in which everything lives but the logs.
pub fn root() -> PathBuf {
    scratch().join(format!("{ROOT}{}", std::process::id()))
}

const ROOT: &str = "runlane-chaos-";

/// Removes what this process leaves behind, and what earlier ones did that were killed.
pub fn sweep() -> anyhow::Result<()> {
    for entry in std::fs::read_dir(scratch())? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(ROOT)).and_then(|pid| pid.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if owner == std::process::id() || !Path::new("/proc").join(owner.to_string()).exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Makes a directory through which PostgreSQL's user may pass, when we are root.
pub fn make(dir: &Path) -> anyhow::Result<()> {
    Ok(std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?)
}

/// Where databases live: in memory if there is room, so that one machine's disk decides no timing.
fn scratch() -> PathBuf {
    const ROOM_BYTES: u128 = 4 << 30;
    let memory = PathBuf::from("/dev/shm");
    let fits = nix::sys::statvfs::statvfs(&memory)
        .is_ok_and(|fs| u128::from(fs.blocks_available()) * u128::from(fs.fragment_size()) >= ROOM_BYTES);
    if fits { memory } else { std::env::temp_dir() }
}
