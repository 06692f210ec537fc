//! Starts the binary in a directory and an environment of its own. No output may ever hold a secret.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::app::{PATIENCE, python};

/// What the binary signs with; must never be printed.
pub const SECRET: &str = "signed-with-a-secret-that-nobody-may-ever-see";
/// The password in the databases' URLs; must never be printed. The tests' server asks for none.
pub const PASSWORD: &str = "a-database-password-that-nobody-may-see";

/// `url` with a password in it, unless it has one.
pub fn with_password(url: &str) -> String {
    let (who, rest) = url.split_once('@').expect("the URL names a user");
    if who.trim_start_matches("postgres://").contains(':') {
        return url.to_owned();
    }
    format!("{who}:{PASSWORD}@{rest}")
}

/// A directory that everything of one test lives in.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        // As root, the embedded server's user must be able to pass through.
        let mode = std::fs::Permissions::from_mode(0o711);
        Self(tempfile::Builder::new().prefix("runlane-cli").permissions(mode).tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The binary with these arguments, in an environment in which nothing is configured but what it cannot find itself.
    pub fn runlane(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
        // The last one is where an instrumented program counts its lines; without it the file would lie in its home.
        let kept = |name: &str| {
            name.starts_with("RUNLANE_POSTGRES_") || matches!(name, "PATH" | "HOME" | "LLVM_PROFILE_FILE")
        };
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| kept(name)))
            .env("TMPDIR", self.path())
            .env("RUNLANE_PYTHON", python())
            .env("RUNLANE_DATA_DIR", self.data())
            // The tests' own server need not survive a power cut.
            .env("RUNLANE_ALLOW_UNSAFE_POSTGRES", "true")
            .env("RUNLANE_LISTEN", "127.0.0.1:0")
            .env("RUNLANE_WARM_WORKERS", "1")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The same, for a database and with a secret.
    pub fn configured(&self, arguments: &[&str], url: &str) -> Command {
        let mut command = self.runlane(arguments);
        command.env("DATABASE_URL", with_password(url)).env("RUNLANE_JWT_SECRET", SECRET);
        command
    }

    /// Panics unless everything that was started here has ended and its sockets are gone.
    #[track_caller]
    pub fn is_quiet(&self) {
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        assert_eq!(sockets(self.path()), Vec::<PathBuf>::new(), "sockets are left");
    }

    /// The processes that name this directory, as the embedded server's do.
    pub fn processes(&self) -> Vec<String> {
        let home = self.path().to_string_lossy();
        let entries = std::fs::read_dir("/proc").expect("Linux");
        let names = entries.flatten().filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok());
        names
            // A process may end while we look.
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
            .filter(|line| line.contains(&*home))
            .collect()
    }
}

/// The sockets below `dir`.
pub fn sockets(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let entries = entries.flatten().filter_map(|e| Some((e.path(), e.file_type().ok()?)));
    entries
        .flat_map(|(path, kind)| {
            if kind.is_dir() {
                sockets(&path)
            } else if kind.is_socket() {
                vec![path]
            } else {
                Vec::new()
            }
        })
        .collect()
}

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics unless it ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }

    /// The message of a process that refused; panics unless it did, with one line for people.
    #[track_caller]
    pub fn refusal(&self) -> &str {
        assert!(!self.status.success() && self.status.code().is_some(), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        let at = self.stderr.find("runlane: ").unwrap_or_else(|| panic!("{self:#?}"));
        &self.stderr[at..]
    }
}

/// Runs a process to its end.
#[track_caller]
pub fn finish(mut command: Command) -> impl Future<Output = Output> {
    let process = Running::start(&mut command);
    async move { process.end().await }
}

/// A process and what it has said so far.
pub struct Running {
    child: Child,
    stdout: Said,
    stderr: Said,
}

struct Said {
    text: Arc<Mutex<String>>,
    more: Arc<Notify>,
    reader: JoinHandle<()>,
}

impl Said {
    fn by(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (text, more) = (Arc::new(Mutex::new(String::new())), Arc::new(Notify::new()));
        let (to, tell) = (Arc::clone(&text), Arc::clone(&more));
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await.expect("the output is UTF-8") {
                let mut text = to.lock().expect("nobody panics here");
                text.push_str(&line);
                text.push('\n');
                drop(text);
                tell.notify_one();
            }
            tell.notify_one();
        });
        Self { text, more, reader }
    }

    fn so_far(&self) -> String {
        self.text.lock().expect("nobody panics here").clone()
    }

    /// The first line with `needle` in it.
    async fn line(&self, needle: &str) -> Option<String> {
        loop {
            let (said, ended) = (self.so_far(), self.reader.is_finished());
            if let Some(line) = said.lines().find(|line| line.contains(needle)) {
                return Some(line.to_owned());
            }
            if ended {
                return None;
            }
            self.more.notified().await;
        }
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Said::by(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Said::by(child.stderr.take().expect("stderr is a pipe"));
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until the process has printed a line with `needle` in it, and gives the line.
    pub async fn prints(&self, needle: &str) -> String {
        self.said(&self.stdout, needle).await
    }

    /// The same for stderr.
    pub async fn logs(&self, needle: &str) -> String {
        self.said(&self.stderr, needle).await
    }

    /// Everything until now, for the message of a failed test.
    async fn so_far(&self) -> String {
        // What an ended process has said last may not have been read yet.
        while self.stdout.reader.is_finished() && !self.stderr.reader.is_finished() {
            self.stderr.more.notified().await;
        }
        format!("{}\n{}", self.stdout.so_far(), self.stderr.so_far())
    }

    async fn said(&self, stream: &Said, needle: &str) -> String {
        match tokio::time::timeout(PATIENCE, stream.line(needle)).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("it ended without saying {needle:?}:\n{}", self.so_far().await),
            Err(_) => panic!("it never said {needle:?}:\n{}", self.so_far().await),
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// The address that a serving process has chosen.
    pub async fn address(&self) -> String {
        let line = self.logs("listening address=").await;
        line.rsplit("address=").next().expect("it is there").trim().to_owned()
    }

    /// Waits for the end of the process, and looks for secrets in all that it said.
    pub async fn end(mut self) -> Output {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| {
            panic!("it does not end: {}\n{}", self.stdout.so_far(), self.stderr.so_far())
        });
        self.stdout.reader.await.unwrap();
        self.stderr.reader.await.unwrap();
        let text = |said: Arc<Mutex<String>>| said.lock().expect("nobody panics here").clone();
        let output = Output {
            status: status.unwrap(),
            stdout: text(self.stdout.text),
            stderr: text(self.stderr.text),
        };
        for secret in [SECRET, PASSWORD] {
            assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{output:#?}");
        }
        output
    }
}
