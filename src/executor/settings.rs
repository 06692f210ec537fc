//! What the executor needs to know, taken from the configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use tokio::process::Command;

use crate::config::Config;
use crate::domain::provider;
use crate::process::Limits;

/// How workers are started and bounded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Program and arguments of a one-shot worker.
    pub worker_command: Vec<OsString>,
    /// What a warm worker gets as further arguments.
    pub serve_arguments: Vec<OsString>,
    /// The whole environment of a worker: nothing else of the node's reaches it.
    pub environment: Environment,
    /// What the workers of a provider get besides: its key and where it is. They serve that provider only.
    pub providers: BTreeMap<String, Environment>,
    /// Texts that are blanked in messages and in stderr: the values of passed keys and proxies' passwords. Longer ones
    /// come before those that they may contain.
    pub secrets: Vec<String>,
    /// Warm processes at most.
    pub warm_workers: usize,
    /// One-shot processes at most, for probes and for analyses each.
    pub one_shot_workers: usize,
    /// From a warm process's start to its `hello`.
    pub start_timeout: Duration,
    /// The wait after a failed start, of a warm process or of a one-shot one, doubled with every further failure.
    pub restart_base: Duration,
    /// No such wait is longer.
    pub restart_max: Duration,
    /// The longest line of a warm worker, and the whole output of a one-shot one, in bytes.
    pub line_max_bytes: usize,
    /// What is kept of the end of stderr, in bytes.
    pub stderr_max_bytes: usize,
    /// Requests waiting to be written to one warm process, in bytes.
    pub queue_max_bytes: usize,
    /// How long a worker has to answer a cancel or an overrun deadline.
    pub cancel_grace: Duration,
    /// How long a worker has after SIGTERM.
    pub term_grace: Duration,
    /// What a one-shot process may use.
    pub limits: Limits,
    /// Where workers' private directories are made.
    pub work_dir: PathBuf,
}

/// Tells a worker whose models it will call, so that it can import the client before it says hello.
const PROVIDER: &str = "WORKER_PROVIDER";

/// Tells a worker its own directory, and marks what it starts.
pub(super) const PLACE: &str = "RUNLANE_WORK_DIR";

const MIB: u64 = 1_048_576;

/// Shorter values are no secrets, and blanking them would make messages unreadable.
const SECRET_MIN_BYTES: usize = 8;

/// Variables that every worker gets: where programs, homes, temporary files, certificates and proxies are, and the
/// locale. Names that start with `LC_` or `PYTHON` pass as well.
const PASSED: [&str; 18] = [
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Those of them whose value may hold a password.
const PROXIES: [&str; 2] = ["HTTP_PROXY", "HTTPS_PROXY"];

impl Settings {
    /// The settings of `python -m runlane_worker` under `config`, with what may pass of this process's environment.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let n = &config.numbers;
        let (environment, mut secrets) = environment(std::env::vars_os(), &config.worker_env);
        let keys = config.providers.iter().filter_map(|(_, access)| access.key.as_ref());
        secrets.extend(keys.map(|key| key.expose_secret().to_owned()));
        Self {
            worker_command: vec![program(&config.python).into(), "-m".into(), "runlane_worker".into()],
            serve_arguments: vec!["--serve".into()],
            environment,
            providers: providers(config),
            secrets: in_order(secrets),
            warm_workers: n.warm_workers as usize,
            one_shot_workers: n.one_shot_workers as usize,
            start_timeout: Duration::from_millis(n.worker_start_timeout_ms),
            restart_base: Duration::from_millis(n.worker_restart_base_ms),
            restart_max: Duration::from_millis(n.worker_restart_max_ms),
            line_max_bytes: n.worker_line_max_bytes,
            stderr_max_bytes: n.worker_stderr_max_bytes,
            queue_max_bytes: n.worker_queue_max_bytes,
            cancel_grace: Duration::from_millis(n.worker_cancel_grace_ms),
            term_grace: Duration::from_millis(n.worker_term_grace_ms),
            limits: Limits {
                memory_bytes: Some(n.worker_memory_max_mb * MIB),
                cpu_seconds: Some(n.one_shot_cpu_max_seconds),
                open_files: Some(n.worker_open_files_max),
                file_bytes: Some(n.worker_file_max_mb * MIB),
                no_core: true,
            },
            work_dir: config.work_dir.clone(),
        }
    }

    /// The settings for workers of `provider` only.
    pub(super) fn of_provider(&self, provider: &str) -> Self {
        let mut settings = Self { providers: BTreeMap::new(), ..self.clone() };
        settings.environment.extend(self.providers.get(provider).into_iter().flatten().cloned());
        settings
    }

    /// What a process may use: a warm one serves as long as the node, so that no sum of processor time bounds it.
    pub(super) fn limits(&self, serve: bool) -> Limits {
        Limits { cpu_seconds: self.limits.cpu_seconds.filter(|_| !serve), ..self.limits }
    }

    /// The command of a worker that works in `place`, without its streams.
    ///
    /// # Errors
    /// When `worker_command` is empty.
    pub(super) fn command(&self, serve: bool, place: &Path) -> std::io::Result<Command> {
        let (program, arguments) = self.worker_command.split_first().ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "the worker command is empty")
        })?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        // What it leaves behind goes with its directory, and what it starts is known by the variable.
        command.current_dir(place).env("TMPDIR", place).env(PLACE, place);
        if serve {
            command.args(&self.serve_arguments);
        }
        Ok(command)
    }

    /// `text` with secrets blanked.
    pub(super) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for secret in &self.secrets {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), "[redacted]").into();
            }
        }
        clean
    }

    /// `raw` with secrets blanked. They hold nothing that JSON would write in another way.
    ///
    /// # Errors
    /// That it is no JSON without them: the secret was part of its form.
    pub(super) fn redacted<'t>(&self, raw: &'t RawValue) -> Result<Cow<'t, RawValue>, String> {
        match self.redact(raw.get()) {
            Cow::Borrowed(_) => Ok(Cow::Borrowed(raw)),
            Cow::Owned(text) => RawValue::from_string(text)
                .map(Cow::Owned)
                .map_err(|_| "it holds a secret where no text can be".to_owned()),
        }
    }

    /// The first place from `cut` on that does not lie within a secret.
    pub(super) fn past_secrets(&self, bytes: &[u8], mut cut: usize) -> usize {
        loop {
            let within = self.secrets.iter().filter_map(|secret| {
                let (secret, length) = (secret.as_bytes(), secret.len());
                let mut starts = (cut.saturating_sub(length.saturating_sub(1))..cut).rev();
                starts.find(|&at| bytes[at..].starts_with(secret)).map(|at| at + length)
            });
            match within.max() {
                // Another may lie across the end of this one.
                Some(end) => cut = end,
                None => return cut,
            }
        }
    }

    /// How long no start is tried after the `failures`-th failed one in a row (1, 2, 3 …).
    pub(super) fn restart_delay(&self, failures: u32) -> Duration {
        let factor = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.restart_base.saturating_mul(factor).min(self.restart_max)
    }
}

/// A path with a directory is made absolute without following links: a virtual environment's interpreter is one.
fn program(python: &Path) -> PathBuf {
    if python.components().count() > 1 {
        std::path::absolute(python).unwrap_or_else(|_| python.to_owned())
    } else {
        python.to_owned()
    }
}

/// What of a proxy's URL nobody may see: its password, also with the name before it, which blanks a short one too.
fn proxy_secrets(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let Some((credentials, _)) = rest.rsplit_once('@') else { return Vec::new() };
    let Some((_, password)) = credentials.split_once(':') else { return Vec::new() };
    let decoded = percent_decode_str(password).decode_utf8_lossy().into_owned();
    vec![credentials.to_owned(), password.to_owned(), decoded]
}

/// Variables with their values.
pub type Environment = Vec<(OsString, OsString)>;

/// What passes of `all`, and the values among it that are secret.
fn environment(
    all: impl Iterator<Item = (OsString, OsString)>,
    worker_env: &[String],
) -> (Environment, Vec<String>) {
    let mut passed = Vec::new();
    let mut secrets = Vec::new();
    for (name, value) in all {
        let Some(text) = name.to_str() else { continue };
        let is_proxy = PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(text));
        if is_proxy {
            secrets.extend(proxy_secrets(&value.to_string_lossy()));
        }
        if worker_env.iter().any(|n| n == text) {
            secrets.push(value.to_string_lossy().into_owned());
        } else if !(PASSED.contains(&text) || text.starts_with("LC_") || text.starts_with("PYTHON")) {
            continue;
        }
        passed.push((name, value));
    }
    // The protocol is UTF-8 whatever the locale says.
    passed.retain(|(name, _)| name != "PYTHONUTF8");
    passed.push(("PYTHONUTF8".into(), "1".into()));
    (passed, in_order(secrets))
}

/// What is long enough to be a secret, in the order in which it is blanked.
fn in_order(mut secrets: Vec<String>) -> Vec<String> {
    secrets.retain(|secret| secret.len() >= SECRET_MIN_BYTES);
    // Blanking a part of a longer one first would leave the rest of it.
    secrets.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets
}

/// What the workers of each provider get that has a key or an address of its own.
fn providers(config: &Config) -> BTreeMap<String, Environment> {
    let n = &config.numbers;
    let mut all = BTreeMap::new();
    for (name, reached) in config.providers.iter() {
        let Some(access) = provider::find(name).and_then(|p| p.access.as_ref()) else { continue };
        let mut environment: Environment = vec![
            (PROVIDER.into(), name.into()),
            ("RUNLANE_PROVIDER_CONNECT_TIMEOUT_MS".into(), n.provider_connect_timeout_ms.to_string().into()),
            ("RUNLANE_PROVIDER_READ_TIMEOUT_MS".into(), n.provider_read_timeout_ms.to_string().into()),
        ];
        if let Some(key) = &reached.key {
            environment.push((access.key.into(), key.expose_secret().into()));
        }
        if let Some(url) = &reached.base_url {
            environment.push((access.base_url.into(), url.into()));
        }
        all.insert(name.to_owned(), environment);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_passes() {
        let all =
            ["PATH", "DATABASE_URL", "RUNLANE_JWT_SECRET", "PYTHONPATH", "LC_ALL", "PGPASSWORD", "MY_KEY"];
        let all = all.map(|n| (n.into(), format!("value of {n}").into()));
        let (passed, secrets) = environment(all.into_iter(), &["MY_KEY".to_owned()]);
        let names: Vec<_> = passed.iter().map(|(n, _)| n.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "PYTHONPATH", "LC_ALL", "MY_KEY", "PYTHONUTF8"]);
        assert_eq!(secrets, ["value of MY_KEY"]);
    }

    #[test]
    fn a_proxys_password_is_a_secret_however_it_is_written() {
        let secrets = |name: &str, url: &str| {
            let all = [(OsString::from(name), OsString::from(url))];
            let (passed, secrets) = environment(all.into_iter(), &[]);
            assert_eq!(passed[0].1, url, "it reaches the worker");
            secrets
        };
        assert_eq!(
            secrets("https_proxy", "http://ada:p%40ssword@proxy:3128/"),
            ["ada:p%40ssword", "p%40ssword", "p@ssword"]
        );
        assert_eq!(secrets("HTTP_PROXY", "somebody:short@proxy"), ["somebody:short"]);
        for open in ["http://proxy:3128", "http://ada@proxy:3128"] {
            assert_eq!(secrets("HTTPS_PROXY", open), Vec::<String>::new(), "{open}");
        }
        assert_eq!(secrets("NO_PROXY", "a:password@b"), Vec::<String>::new());
    }

    #[test]
    fn a_secret_within_another_leaves_nothing_of_it() {
        let all = [("SHORT", "password"), ("LONG", "my-password-is-this")].map(|(n, v)| (n.into(), v.into()));
        let (_, secrets) = environment(all.into_iter(), &["SHORT".to_owned(), "LONG".to_owned()]);
        let settings =
            Settings { secrets, ..Settings::from_config(&Config::from_lookup(&|_| None).unwrap()) };
        assert_eq!(settings.redact("my-password-is-this, password"), "[redacted], [redacted]");
    }

    #[test]
    fn restarts_back_off_up_to_the_maximum() {
        let config = Config::from_lookup(&|_| None).unwrap();
        let settings = Settings::from_config(&config);
        assert_eq!(settings.restart_delay(1), settings.restart_base);
        assert_eq!(settings.restart_delay(3), settings.restart_base * 4);
        assert_eq!(settings.restart_delay(u32::MAX), settings.restart_max);
    }
}
