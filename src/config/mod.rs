//! The one typed configuration: every limit, timeout and default, with its variable, range and meaning.
//!
//! [`Config::from_lookup`] reads all variables, reports every mistake at once and names the variable of each.
//! `.env.example` is printed from the same table by [`env_example`], and a test compares the two.

mod archive;
mod example;
mod kinds;
mod limits;
mod numbers;
mod prices;
mod providers;
mod source;
mod staleness;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

pub use archive::ArchivePolicy;
pub use example::{Setting, env_example, settings};
pub use kinds::KindPolicy;
pub use numbers::Numbers;
pub use providers::{ProviderAccess, Providers};
pub use staleness::Staleness;

use crate::domain::JobKind;
use crate::domain::prices::PriceTable;
use crate::domain::rate_limit::Ceilings;
use kinds::kind_policy;
use source::Source;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub variable: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// The configuration cannot be used; every mistake is listed.
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be used:{}", list(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, p| {
        let _ = write!(text, "\n  {}: {}", p.variable, p.message);
        text
    })
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Which programs the embedded PostgreSQL may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresSource {
    /// The configured directory's, else the machine's, else the package's.
    Auto,
    /// The configured directory's, else the machine's; nothing is installed.
    System,
    /// The package's.
    Package,
}

/// The configuration of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`; without one, an embedded PostgreSQL is used where the command allows it.
    pub database_url: Option<SecretString>,
    /// Whether a PostgreSQL that can lose what it has confirmed will do.
    pub allow_unsafe_postgres: bool,
    /// Where the embedded PostgreSQL and other private files live.
    pub data_dir: PathBuf,
    /// Where workers' private directories are made.
    pub work_dir: PathBuf,
    /// Where PostgreSQL's programs are, for the embedded one.
    pub postgres_bin_dir: Option<PathBuf>,
    /// Which programs the embedded PostgreSQL may use.
    pub postgres_source: PostgresSource,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Signs and verifies tokens; `serve` refuses to start without.
    pub jwt_secret: Option<SecretString>,
    /// The `iss` of tokens.
    pub jwt_issuer: String,
    /// The `aud` of tokens.
    pub jwt_audience: String,
    /// Origins of front-ends that browsers may call from.
    pub cors_origins: Vec<String>,
    /// A `tracing` filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Whether this process executes jobs.
    pub execute: bool,
    /// The Python interpreter that has `runlane_worker` installed.
    pub python: PathBuf,
    /// Variables that every worker gets besides the usual ones (PATH, HOME, locale, proxies, PYTHON…).
    pub worker_env: Vec<String>,
    /// Limits on providers and models that are declared at the start: names and ceilings.
    pub rate_limits: Vec<(String, Ceilings)>,
    /// The models that `demo` asks, separated by commas.
    pub demo_models: Option<String>,
    /// The models' providers that this process's workers can call.
    pub providers: Providers,
    /// What models cost.
    pub prices: Arc<PriceTable>,
    /// How the search for what has taken too long works.
    pub staleness: Staleness,
    /// How long what is finished is kept.
    pub archive: ArchivePolicy,
    /// The numeric settings.
    pub numbers: Numbers,
    /// What holds for each kind of job.
    pub kinds: BTreeMap<JobKind, KindPolicy>,
}

/// The least bytes of a JWT secret.
pub const JWT_SECRET_MIN_BYTES: usize = 32;

impl Config {
    /// Reads the configuration from the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn from_env() -> Result<Self, ConfigError> {
        let unreadable = RefCell::new(BTreeSet::new());
        let read = Self::from_lookup(&|name| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                unreadable.borrow_mut().insert(name.to_owned());
                None
            }
        });
        let mut problems: Vec<Problem> = unreadable
            .into_inner()
            .into_iter()
            .map(|variable| Problem { variable, message: "is no UTF-8: give it as text".into() })
            .collect();
        match read {
            Ok(config) if problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError(problems)),
            Err(ConfigError(more)) => {
                problems.extend(more);
                Err(ConfigError(problems))
            }
        }
    }

    /// Reads the configuration from `lookup`; an empty value counts as unset.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut source = Source { lookup, problems: Vec::new() };
        let numbers = Numbers::read(&mut source);
        let kinds =
            JobKind::ALL.iter().map(|&kind| (kind, kind_policy(&mut source, kind, &numbers))).collect();
        let data_dir = PathBuf::from(source.text("RUNLANE_DATA_DIR").unwrap_or_else(|| ".runlane".into()));
        let config = Self {
            database_url: source.text("DATABASE_URL").map(SecretString::from),
            allow_unsafe_postgres: source.parsed("RUNLANE_ALLOW_UNSAFE_POSTGRES", false, "true or false"),
            work_dir: source.text("RUNLANE_WORK_DIR").map_or_else(|| data_dir.join("work"), PathBuf::from),
            data_dir,
            postgres_bin_dir: source.text("RUNLANE_POSTGRES_BIN_DIR").map(Into::into),
            postgres_source: match source.text("RUNLANE_POSTGRES_SOURCE").as_deref() {
                None | Some("auto") => PostgresSource::Auto,
                Some("system") => PostgresSource::System,
                Some("package") => PostgresSource::Package,
                Some(other) => {
                    let message = format!("{other:?} cannot be used: give auto, system or package");
                    source.problem("RUNLANE_POSTGRES_SOURCE", message);
                    PostgresSource::Auto
                }
            },
            listen: source.parsed(
                "RUNLANE_LISTEN",
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                "an address and a port, such as 127.0.0.1:8080",
            ),
            jwt_secret: source.text("RUNLANE_JWT_SECRET").map(SecretString::from),
            jwt_issuer: source.text("RUNLANE_JWT_ISSUER").unwrap_or_else(|| "runlane".into()),
            jwt_audience: source.text("RUNLANE_JWT_AUDIENCE").unwrap_or_else(|| "runlane".into()),
            cors_origins: cors_origins(&mut source),
            log: source.text("RUNLANE_LOG").unwrap_or_else(|| "info".into()),
            log_format: match source.text("RUNLANE_LOG_FORMAT").as_deref() {
                None | Some("pretty") => LogFormat::Pretty,
                Some("json") => LogFormat::Json,
                Some(other) => {
                    let message = format!("{other:?} cannot be used: give pretty or json");
                    source.problem("RUNLANE_LOG_FORMAT", message);
                    LogFormat::Pretty
                }
            },
            execute: source.parsed("RUNLANE_EXECUTE", true, "true or false"),
            python: source.text("RUNLANE_PYTHON").unwrap_or_else(|| "python/.venv/bin/python".into()).into(),
            worker_env: worker_env(&mut source),
            rate_limits: limits::declared(&mut source),
            demo_models: source.text("MODELS"),
            providers: Providers::read(&mut source),
            prices: prices::price_table(&mut source),
            staleness: staleness::staleness(&mut source),
            archive: ArchivePolicy::read(&mut source),
            numbers,
            kinds,
        };
        config.check(&mut source);
        if source.problems.is_empty() { Ok(config) } else { Err(ConfigError(source.problems)) }
    }

    /// What no single variable shows.
    fn check(&self, source: &mut Source<'_>) {
        use secrecy::ExposeSecret;
        if let Some(secret) = &self.jwt_secret
            && secret.expose_secret().len() < JWT_SECRET_MIN_BYTES
        {
            let message = format!(
                "is too short: give at least {JWT_SECRET_MIN_BYTES} bytes, for example from `openssl rand -hex 32`"
            );
            source.problem("RUNLANE_JWT_SECRET", message);
        }
        let n = &self.numbers;
        let retries = u64::from(n.database_retries);
        let refusal_ms = (retries + 1) * n.pool_acquire_timeout_ms + retries * n.database_retry_delay_ms;
        if refusal_ms >= n.http_request_timeout_ms {
            let message = format!(
                "{retries} makes a request wait {refusal_ms} ms for the database, with {} ms each time (RUNLANE_POOL_ACQUIRE_TIMEOUT_MS), but it may take {} ms in all (RUNLANE_HTTP_REQUEST_TIMEOUT_MS): give fewer retries or shorter waits",
                n.pool_acquire_timeout_ms, n.http_request_timeout_ms
            );
            source.problem("RUNLANE_DATABASE_RETRIES", message);
        }
        if self.numbers.lease_renewal_ms * 3 > self.numbers.lease_ms {
            let message = format!(
                "{} is more than a third of RUNLANE_LEASE_MS ({}): a node needs time for two retries",
                self.numbers.lease_renewal_ms, self.numbers.lease_ms
            );
            source.problem("RUNLANE_LEASE_RENEWAL_MS", message);
        }
        for (kind, policy) in &self.kinds {
            if policy.backoff.base > policy.backoff.max {
                let variable = format!("RUNLANE_RETRY_BASE_MS_{}", kind.env_suffix());
                source.problem(&variable, "is above the maximum, RUNLANE_RETRY_MAX_MS of the same kind");
            }
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            let message = format!(
                "{:?} is no log filter ({error}): give for example info or runlane=debug,info",
                self.log
            );
            source.problem("RUNLANE_LOG", message);
        }
    }

    /// What holds for `kind`.
    #[must_use]
    pub fn kind(&self, kind: JobKind) -> KindPolicy {
        self.kinds[&kind]
    }
}

fn worker_env(source: &mut Source<'_>) -> Vec<String> {
    let text = source.text("RUNLANE_WORKER_ENV").unwrap_or_default();
    let mut names = Vec::new();
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        if name.contains(['=', '\0', ' ']) {
            let message = format!("{name:?} is no variable's name: give names separated by commas");
            source.problem("RUNLANE_WORKER_ENV", message);
        } else if name == "DATABASE_URL" || name == "RUNLANE_JWT_SECRET" || name.starts_with("PG") {
            let message =
                format!("{name} is the node's own secret and must not reach a worker: leave it out");
            source.problem("RUNLANE_WORKER_ENV", message);
        } else if providers::is_of_a_provider(name) {
            let message =
                format!("{name} reaches the workers of its provider as it is, and no others: leave it out");
            source.problem("RUNLANE_WORKER_ENV", message);
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

fn cors_origins(source: &mut Source<'_>) -> Vec<String> {
    let Some(text) = source.text("RUNLANE_CORS_ORIGINS") else { return Vec::new() };
    let mut origins = Vec::new();
    for origin in text.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])) {
            origins.push(origin.to_owned());
        } else {
            let message =
                format!("{origin:?} is no origin: give scheme and host, such as https://app.example.org");
            source.problem("RUNLANE_CORS_ORIGINS", message);
        }
    }
    origins
}
