//! One process put together: pools, schema, orchestrator, HTTP.

mod command;
mod durability;
mod health;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::ThreadRng;
use rand_chacha::ChaCha20Rng;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use futures_util::future::join_all;

use crate::auth::Authority;
use crate::config::{Config, ConfigError, Numbers, Problem};
use crate::domain::clock::Clock;
use crate::executor::{Executor, Settings as ExecutorSettings};
use crate::http::{Exports, HttpOptions, ShutdownOutcome};
use crate::orchestrator::{self, Metrics, Parts};
use crate::service::Service;
use crate::store::{MigrateError, Patience, PoolSettings, Store, connect, migrate, reach};
pub use command::{command_store, command_store_with, service};
use health::AppProbes;

/// How long a starting process waits for the database.
pub const DATABASE_WAIT: Duration = Duration::from_secs(8);

/// Connections that a process needs besides its pools: three for leases, one to listen, one for each duty that it leads in.
pub const CONNECTIONS_BESIDES_POOLS: u32 = 6;
/// How long a stopping process waits for its connections to close; one that is silent ends with the process.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database did not answer in time.
    #[error("DATABASE_URL: {0}")]
    Database(#[source] crate::store::Error),
    /// The database can lose what it has confirmed.
    #[error(
        "DATABASE_URL: PostgreSQL may lose what it has confirmed when its machine fails ({0}): switch it on, or set RUNLANE_ALLOW_UNSAFE_POSTGRES=true if losing and repeating jobs is acceptable here"
    )]
    Unsafe(String),
    /// The schema cannot be brought to this version.
    #[error("the database's schema cannot be migrated: {0}")]
    Migrate(#[from] MigrateError),
    /// A command found a schema of another version, which it does not change by itself.
    #[error("the database's schema is not of this version: {0}")]
    Schema(String),
    /// Workers' directories cannot be made.
    #[error("RUNLANE_WORK_DIR: {0}; give a directory in which this process may write")]
    WorkDir(#[source] std::io::Error),
    /// The address is taken or not allowed.
    #[error("cannot listen on {address} (RUNLANE_LISTEN): {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// What a process does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Serves HTTP.
    pub serves: bool,
    /// Executes jobs.
    pub executes: bool,
}

/// A running process.
#[derive(Debug)]
pub struct App {
    /// Where HTTP is served, if it is.
    pub address: Option<SocketAddr>,
    shutdown: CancellationToken,
    now: CancellationToken,
    stop_serving: CancellationToken,
    http: Option<JoinHandle<std::io::Result<ShutdownOutcome>>>,
    orchestrator: Option<JoinHandle<()>>,
    executor: Option<Arc<Executor>>,
    registered: Arc<Notify>,
    is_draining: Arc<AtomicBool>,
    pools: Pools,
}

/// Pools of one process.
#[derive(Debug, Clone)]
struct Pools {
    api: Store,
    orchestrator: Store,
    lease: Store,
}

/// The pools' settings.
pub(crate) fn pool_settings(numbers: &Numbers, size: u32) -> PoolSettings {
    PoolSettings {
        size,
        acquire_timeout: Duration::from_millis(numbers.pool_acquire_timeout_ms),
        statement_timeout: Duration::from_millis(numbers.statement_timeout_ms),
        lock_timeout: Duration::from_millis(numbers.lock_timeout_ms),
    }
}

/// How long the database is waited for.
pub(crate) fn patience(numbers: &Numbers) -> Patience {
    Patience {
        answer: Duration::from_millis(numbers.statement_timeout_ms + numbers.database_silence_ms),
        retries: numbers.database_retries,
        retry_delay: Duration::from_millis(numbers.database_retry_delay_ms),
    }
}

/// What a process of these roles needs and nothing else provides: every mistake at once.
fn check(config: &Config, roles: Roles, clock: &Arc<dyn Clock>) -> Result<(), StartError> {
    let mut problems = Vec::new();
    let mut note = |result: Result<(), StartError>| match result {
        Err(StartError::Config(ConfigError(more))) => {
            problems.extend(more);
            Ok(())
        }
        other => other,
    };
    note(database_url(config).map(drop).map_err(StartError::from))?;
    if roles.serves {
        note(authority(config, Arc::clone(clock)).map(drop))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems).into()) }
}

/// The URL of the configuration.
///
/// # Errors
/// [`ConfigError`] naming the variable when there is none.
pub fn database_url(config: &Config) -> Result<SecretString, ConfigError> {
    config.database_url.clone().ok_or_else(|| {
        ConfigError(vec![Problem {
            variable: "DATABASE_URL".into(),
            message: "is not set: give postgres://user:password@host:port/database, or use `runlane dev` for a private PostgreSQL".into(),
        }])
    })
}

/// Waits for the database, for `patience` at most, and brings its schema to this version.
///
/// # Errors
/// [`StartError`] when it does not answer in time or refuses.
pub async fn prepare_database(config: &Config, patience: Duration) -> Result<(), StartError> {
    let url = database_url(config)?;
    reach(&url, patience).await.map_err(StartError::Database)?;
    let pool =
        connect(&url, "runlane migrate", pool_settings(&config.numbers, 1)).map_err(StartError::Database)?;
    migrate(&pool).await?;
    pool.close().await;
    Ok(())
}

impl App {
    /// Starts a process. It is ready when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Arc<Config>, roles: Roles, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        check(&config, roles, &clock)?;
        let url = database_url(&config)?;
        // Before anything is changed.
        durability::require(&config, DATABASE_WAIT).await?;
        prepare_database(&config, DATABASE_WAIT).await?;
        let n = &config.numbers;
        let store = |name: &str, size: u32| {
            connect(&url, name, pool_settings(n, size))
                .map(|pool| Store::new(pool).patient(patience(n)))
                .map_err(StartError::Database)
        };
        let pools = Pools {
            api: store("runlane api", n.api_pool_size)?.on_kept_connections().reading_again(),
            orchestrator: store("runlane orchestrator", n.orchestrator_pool_size)?,
            // A lease has no time for waits: its next renewal is the next try.
            lease: store("runlane lease", 2)?.patient(Patience { retries: 0, ..patience(n) }),
        };
        if pools.lease.settle_home().await.map_err(StartError::Database)? {
            tracing::error!(
                "the database was restored or copied: the queue is paused; see `runlane restored`, then resume the queue"
            );
        }
        // Until a node leads, what is shown goes by these.
        pools
            .api
            .set_staleness_thresholds(None, &config.staleness_thresholds())
            .await
            .map_err(StartError::Database)?;
        pools.api.declare_rate_limits(&config.rate_limits).await.map_err(StartError::Database)?;
        let mut app = Self {
            address: None,
            shutdown: CancellationToken::new(),
            now: CancellationToken::new(),
            stop_serving: CancellationToken::new(),
            http: None,
            orchestrator: None,
            executor: None,
            registered: Arc::new(Notify::new()),
            is_draining: Arc::default(),
            pools: pools.clone(),
        };
        let mut registry = Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        // The listener first: a taken address must not leave a node behind.
        let listener = if roles.serves { Some(listen(config.listen).await?) } else { None };
        if roles.executes {
            app.execute(&config, &pools, metrics).await?;
        }
        if let Some(listener) = listener {
            app.serve(&config, &pools, registry, listener, clock)?;
        }
        if roles.executes {
            app.registered.notified().await;
        }
        Ok(app)
    }

    async fn execute(
        &mut self,
        config: &Arc<Config>,
        pools: &Pools,
        metrics: Metrics,
    ) -> Result<(), StartError> {
        let executor = Arc::new(Executor::new(ExecutorSettings::from_config(config)));
        executor.prepare().await.map_err(StartError::WorkDir)?;
        let parts = Parts {
            config: Arc::clone(config),
            store: pools.orchestrator.clone(),
            lease_store: pools.lease.clone(),
            executor: Arc::clone(&executor),
            metrics,
            is_draining: Arc::clone(&self.is_draining),
        };
        self.executor = Some(executor);
        self.orchestrator = Some(tokio::spawn(orchestrator::run(
            Arc::new(parts),
            self.shutdown.clone(),
            self.now.clone(),
            Arc::clone(&self.registered),
        )));
        Ok(())
    }

    fn serve(
        &mut self,
        config: &Arc<Config>,
        pools: &Pools,
        registry: Registry,
        listener: TcpListener,
        clock: Arc<dyn Clock>,
    ) -> Result<(), StartError> {
        let authority = Arc::new(authority(config, Arc::clone(&clock))?);
        let service = Service::new(
            pools.api.clone(),
            Arc::clone(config),
            ChaCha20Rng::from_rng(&mut ThreadRng::default()),
        );
        let exports = Exports::new(
            service.clone(),
            Arc::clone(&authority),
            config.numbers.exports_max,
            Duration::from_millis(config.numbers.export_stall_max_ms),
            Duration::from_millis(config.numbers.http_retry_after_ms),
        );
        let schema = crate::graphql::schema(service, &config.numbers);
        let probes = AppProbes {
            api: pools.api.clone(),
            orchestrator: pools.orchestrator.clone(),
            api_max: config.numbers.api_pool_size,
            orchestrator_max: config.numbers.orchestrator_pool_size,
            shutdown: self.shutdown.clone(),
            is_draining: Arc::clone(&self.is_draining),
        };
        let options = HttpOptions::from_config(config);
        let router =
            crate::http::router(schema, authority, probes, Arc::new(registry), options, exports.routes());
        self.address = listener.local_addr().ok();
        self.http = Some(tokio::spawn(crate::http::serve(
            listener,
            router,
            self.stop_serving.clone(),
            Duration::from_millis(config.numbers.shutdown_grace_ms),
            Duration::from_millis(config.numbers.http_request_timeout_ms),
        )));
        Ok(())
    }

    /// Asks the process to stop: readiness fails, nothing more is claimed, running jobs may finish.
    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Asks the process to give running jobs back at once.
    pub fn hurry(&self) {
        self.now.cancel();
    }

    /// A handle that can be cloned into a signal handler: (stop, hurry).
    #[must_use]
    pub fn stoppers(&self) -> (CancellationToken, CancellationToken) {
        (self.shutdown.clone(), self.now.clone())
    }

    /// Waits until the process has been asked to stop and everything has ended.
    pub async fn stopped(mut self) {
        self.shutdown.cancelled().await;
        if let Some(orchestrator) = self.orchestrator.take()
            && let Err(error) = orchestrator.await
        {
            tracing::error!(%error, "the orchestrator panicked");
        }
        if let Some(executor) = self.executor.take() {
            executor.shutdown().await;
        }
        // The API answers while jobs finish: people watch them.
        self.stop_serving.cancel();
        if let Some(http) = self.http.take() {
            match http.await {
                Ok(Ok(outcome)) => tracing::info!(?outcome, "stopped"),
                Ok(Err(error)) => tracing::error!(%error, "the HTTP server failed"),
                Err(error) => tracing::error!(%error, "the HTTP server panicked"),
            }
        }
        // Whoever stops the database next finds nobody connected.
        let pools = [&self.pools.api, &self.pools.orchestrator, &self.pools.lease];
        let closed = join_all(pools.map(|store| store.close()));
        if tokio::time::timeout(CLOSE_MAX, closed).await.is_err() {
            tracing::warn!("some connections to the database do not close; they end with the process");
        }
    }
}

/// The authority of this configuration.
///
/// # Errors
/// [`StartError::Config`] naming the variable when the secret is missing or too short.
pub fn authority(config: &Config, clock: Arc<dyn Clock>) -> Result<Authority, StartError> {
    let problem = |message: String| {
        StartError::Config(ConfigError(vec![Problem { variable: "RUNLANE_JWT_SECRET".into(), message }]))
    };
    let secret = config.jwt_secret.as_ref().ok_or_else(|| {
        problem("is not set: give at least 32 bytes, for example from `openssl rand -hex 32`".into())
    })?;
    Authority::new(secret, &config.jwt_issuer, &config.jwt_audience, clock)
        .map_err(|weak| problem(weak.to_string()))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}
