//! Where everything runs: one PostgreSQL, a database for each measurement, the server in this process or in its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runlane::app::{App, Roles, authority};
use runlane::config::Config;
use runlane::domain::Role;
use runlane::domain::clock::SystemClock;
use runlane::embedded::{Cluster, Settings};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};

use crate::report::{figure, heading};
use crate::scale::Scale;

/// Signs the tokens of the benches.
const SECRET: &str = "the-benches-sign-with-this-secret-of-48-character";

/// Zero when nobody but the benches is in a database: its sessions have then reported their transactions.
pub const VISITORS: &str = "select count(*) from pg_stat_activity where datname = current_database()
    and backend_type = 'client backend' and application_name <> 'runlane benches'";

/// Zero when nothing waits and nothing runs, analyses included.
pub const LIVE: &str = "select count(*) from lane where is_live";

/// The PostgreSQL and a directory of this process.
pub struct Stage {
    options: PgConnectOptions,
    admin: PgPool,
    cluster: Option<Cluster>,
    dir: PathBuf,
    template: String,
    made: AtomicU32,
}

impl Stage {
    /// Starts PostgreSQL with the product's own settings (durable), unless `DATABASE_URL` names one.
    pub async fn begin() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("runlane-bench-{}", std::process::id()));
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        let given = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        let mut cluster = None;
        let url = match given {
            Some(url) => url,
            None => {
                let lookup = |name: &str| {
                    name.starts_with("RUNLANE_POSTGRES_").then(|| std::env::var(name).ok()).flatten()
                };
                let mut config = Config::from_lookup(&lookup)?;
                config.python = python();
                let settings = Settings { data_dir: dir.clone(), ..Settings::from_config(&config) };
                cluster.insert(Cluster::start(&settings).await?).url().to_owned()
            }
        };
        let options = PgConnectOptions::from_str(&url).context("DATABASE_URL")?;
        let admin = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let template = format!("runlane_bench_{}", std::process::id());
        let stage = Self { options, admin, cluster, dir, template, made: AtomicU32::new(0) };
        stage.execute(format!(r#"create database "{}""#, stage.template)).await?;
        let pool = PgPool::connect(&stage.url(&stage.template)).await?;
        runlane::store::migrate(&pool).await?;
        pool.close().await;
        Ok(stage)
    }

    /// Removes what was made, and stops PostgreSQL.
    pub async fn end(self) -> anyhow::Result<()> {
        self.execute(format!(r#"drop database "{}""#, self.template)).await?;
        self.admin.close().await;
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// Says what the figures were measured on.
    pub async fn print_facts(&self, scale: &Scale) -> anyhow::Result<()> {
        heading("facts");
        let cores = std::thread::available_parallelism()?;
        figure("cores", &cores.to_string());
        for setting in ["server_version", "shared_buffers", "max_wal_size", "fsync", "synchronous_commit"] {
            let value: String =
                sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&self.admin).await?;
            figure(&format!("PostgreSQL {setting}"), &value);
        }
        figure("scale", scale.name);
        Ok(())
    }

    /// Makes a database with the schema in it.
    pub async fn database(&self) -> anyhow::Result<Database> {
        self.copy(&self.template, 4).await
    }

    /// Makes a database with nothing in it; the benches have one connection.
    pub async fn empty(&self) -> anyhow::Result<Database> {
        self.copy("template1", 1).await
    }

    async fn copy(&self, template: &str, connections: u32) -> anyhow::Result<Database> {
        let name = format!("{}_{}", self.template, self.made.fetch_add(1, Ordering::Relaxed));
        self.execute(format!(r#"create database "{name}" template "{template}""#)).await?;
        let url = self.url(&name);
        let options = self.options.clone().database(&name).application_name("runlane benches");
        let db = PgPoolOptions::new().max_connections(connections).connect_with(options).await?;
        Ok(Database { name, url, db })
    }

    /// Removes a database, whoever is still connected.
    pub async fn drop(&self, database: Database) -> anyhow::Result<()> {
        database.db.close().await;
        self.execute(format!(r#"drop database "{}" with (force)"#, database.name)).await
    }

    /// The process of PostgreSQL that started all others; `None` where it runs on another machine.
    pub async fn postmaster(&self) -> anyhow::Result<Option<u32>> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&self.admin).await?;
        let Ok(status) = std::fs::read_to_string(format!("/proc/{backend}/status")) else { return Ok(None) };
        if !status.starts_with("Name:\tpostgres") {
            return Ok(None);
        }
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("its parent")?;
        Ok(Some(parent.trim().parse()?))
    }

    /// Transactions that ended in a database so far, as far as its sessions have reported them.
    pub async fn transactions(&self, database: &Database) -> anyhow::Result<i64> {
        let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
        Ok(sqlx::query_scalar(sql).bind(&database.name).fetch_one(&self.admin).await?)
    }

    /// Has every statement in a database written to PostgreSQL's log, from the next session on.
    pub async fn log_statements(&self, database: &Database) -> anyhow::Result<()> {
        self.execute(format!(r#"alter database "{}" set log_statement = 'all'"#, database.name)).await
    }

    /// PostgreSQL's log; `None` of a server that is not ours.
    pub fn log(&self) -> Option<PathBuf> {
        self.cluster.is_some().then(|| self.dir.join("postgres.log"))
    }

    /// A directory that is removed at the end.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn url(&self, database: &str) -> String {
        let mut url = self.options.clone().database(database).to_url_lossy();
        // What only sqlx knows makes other clients refuse the whole.
        let others = url.query_pairs().filter(|(name, _)| name != "statement-cache-capacity");
        let others: Vec<_> = others.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        url.query_pairs_mut().clear().extend_pairs(others);
        url.into()
    }

    async fn execute(&self, sql: String) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.admin).await?;
        Ok(())
    }
}

/// A database of its own.
pub struct Database {
    name: String,
    /// How a server reaches it.
    pub url: String,
    /// The benches' own connections.
    pub db: PgPool,
}

impl Database {
    /// Has PostgreSQL do now what it would otherwise do during a measurement.
    pub async fn settle(&self) -> anyhow::Result<()> {
        sqlx::raw_sql("vacuum analyze").execute(&self.db).await?;
        sqlx::raw_sql("checkpoint").execute(&self.db).await?;
        Ok(())
    }

    /// One number.
    pub async fn number(&self, sql: &'static str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.db).await?)
    }

    /// The environment of a server on this database, with these settings besides.
    pub fn environment(&self, more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let python = python().to_string_lossy().into_owned();
        [
            ("DATABASE_URL", self.url.as_str()),
            ("RUNLANE_ALLOW_UNSAFE_POSTGRES", "true"),
            ("RUNLANE_LISTEN", "127.0.0.1:0"),
            ("RUNLANE_JWT_SECRET", SECRET),
            ("RUNLANE_PYTHON", &python),
            ("RUNLANE_LOG", "warn"),
        ]
        .into_iter()
        .chain(more.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}

/// The interpreter of the Python environment that `make` prepares.
pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/.venv/bin/python")
}

/// A server in this process and an admin who talks to it over HTTP.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    token: String,
}

/// Starts a server in this process.
pub async fn serve(
    database: &Database,
    executes: bool,
    more: &[(&str, &str)],
) -> anyhow::Result<(App, Client)> {
    let environment = database.environment(more);
    let config = Arc::new(Config::from_lookup(&|name| environment.get(name).cloned())?);
    let app =
        App::start(Arc::clone(&config), Roles { serves: true, executes }, Arc::new(SystemClock)).await?;
    let address = app.address.context("the server listens")?;
    Ok((app, Client::new(address, &config)?))
}

/// An admin's.
fn issue_token(config: &Config) -> anyhow::Result<String> {
    authority(config, Arc::new(SystemClock))?
        .issue("bench", Role::Admin, Duration::from_secs(86_400))
        .map_err(|error| anyhow::anyhow!("no token: {error}"))
}

/// Stops a server of this process.
pub async fn stop(app: App) {
    app.begin_shutdown();
    app.hurry();
    app.stopped().await;
}

impl Client {
    /// An admin of the server there, which has this configuration.
    pub fn new(address: SocketAddr, config: &Config) -> anyhow::Result<Self> {
        let token = issue_token(config)?;
        Ok(Self { http: reqwest::Client::new(), address, token })
    }

    /// Where the server listens, and the token.
    pub fn target(&self) -> (SocketAddr, &str) {
        (self.address, &self.token)
    }

    /// Sends a request; the time runs until its answer has been read.
    pub async fn timed(&self, query: &str, variables: &Value) -> anyhow::Result<(Duration, Value)> {
        let body = serde_json::to_vec(&json!({ "query": query, "variables": variables }))?;
        let request = self
            .http
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body(body);
        let begun = Instant::now();
        let answer = request.send().await?.bytes().await?;
        let time = begun.elapsed();
        let mut answer: Value = serde_json::from_slice(&answer)?;
        ensure!(answer.get("errors").is_none(), "{answer}");
        Ok((time, answer["data"].take()))
    }

    /// Makes a definition whose scenarios are the product of dimensions with so many values; returns its id.
    pub async fn definition(&self, name: &str, sizes: &[usize]) -> anyhow::Result<String> {
        let dimensions: Vec<Value> = sizes
            .iter()
            .enumerate()
            .map(|(i, &size)| {
                let values: Vec<String> = (0..size).map(|v| format!("value {v}")).collect();
                json!({ "name": format!("d{i}"), "values": values })
            })
            .collect();
        let places: Vec<String> = (0..sizes.len()).map(|i| format!("{{d{i}}}")).collect();
        let template = format!("How would you rate {}?", places.join(" with "));
        let input = json!({ "name": name, "content": { "template": template, "dimensions": dimensions } });
        let query = "mutation($input: CreateDefinitionInput!) { createDefinition(input: $input) { id scenarioCount } }";
        let (_, data) = self.timed(query, &json!({ "input": input })).await?;
        let made = &data["createDefinition"];
        ensure!(made["scenarioCount"] == sizes.iter().product::<usize>(), "{made}");
        Ok(made["id"].as_str().context("an id")?.to_owned())
    }

    /// Starts a run of all scenarios; returns how long the answer took, and the run's id.
    pub async fn start_run(&self, definition: &str, models: &[&str]) -> anyhow::Result<(Duration, String)> {
        let query = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";
        let input = json!({ "input": { "definitionId": definition, "models": models } });
        let (time, data) = self.timed(query, &input).await?;
        Ok((time, data["startRun"]["id"].as_str().context("an id")?.to_owned()))
    }
}

/// Waits until so many nodes have registered.
pub async fn registered(database: &Database, nodes: i64) -> anyhow::Result<()> {
    until(database, "the nodes to register", "select count(*) from node", |n| n == nodes).await
}

/// Waits until a number in the database is as wanted.
pub async fn until(
    database: &Database,
    what: &str,
    sql: &'static str,
    wanted: impl Fn(i64) -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let n = database.number(sql).await?;
        if wanted(n) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "waited in vain for {what}: {n}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
