//! Somebody who reads a page at night and types what it says.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::app::{PATIENCE, SECRET, python};
use crate::support::pages::{Answer, Block, Names, blocks, page};
use crate::support::shell::Shell;

pub struct Operator {
    page: &'static str,
    /// Removed with the operator.
    _home: TempDir,
    shell: Shell,
    names: Names,
}

impl Operator {
    /// With a terminal in which README.md's head has been typed, for this database and this server.
    pub async fn at(page: &'static str, url: &str, address: SocketAddr) -> Self {
        Self::with(page, url, address, &[], &[]).await
    }

    /// The same, with programs in these directories and these variables.
    pub async fn with(
        page: &'static str,
        url: &str,
        address: SocketAddr,
        programs: &[PathBuf],
        more: &[(&str, &str)],
    ) -> Self {
        // A server's user must be able to pass through when we are root.
        let mode = std::fs::Permissions::from_mode(0o711);
        let home = tempfile::Builder::new().prefix("runlane-night").permissions(mode).tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_runlane"), bin.join("runlane")).unwrap();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::iter::once(bin).chain(programs.iter().cloned()).chain(std::env::split_paths(&inherited));
        let path = std::env::join_paths(path).unwrap().into_string().unwrap();
        let (url, interpreter) = (for_libpq(url), python().into_os_string().into_string().unwrap());
        let environment = [
            ("PATH", path.as_str()),
            ("DATABASE_URL", &url),
            ("RUNLANE_JWT_SECRET", SECRET),
            ("RUNLANE_PYTHON", &interpreter),
            // The tests' own server need not survive a power cut.
            ("RUNLANE_ALLOW_UNSAFE_POSTGRES", "true"),
        ];
        let environment = environment.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let shell = Shell::new(home.path(), environment.collect(), address.to_string());
        let mut operator = Self { page: "README.md", _home: home, shell, names: Names::default() };
        operator.follow(async |act| panic!("nothing happens elsewhere: {act}")).await;
        operator.page = page;
        operator
    }

    /// Does all that the page says, in order; `act` does what happens elsewhere.
    pub async fn follow(&mut self, mut act: impl AsyncFnMut(&str)) {
        let steps = blocks(&page(&format!("docs/runbooks/{}", self.page)));
        assert!(!steps.is_empty(), "{} was read", self.page);
        for block in &steps {
            match block.kind.as_str() {
                "do" => act(&block.text).await,
                _ => self.execute(block).await,
            }
        }
    }

    /// Somebody has told the operator, as a variable.
    pub async fn is_told(&self, name: &str, value: &str) {
        assert!(self.shell.types(&format!("export {name}='{value}'")).await.ended_well);
    }

    async fn execute(&mut self, block: &Block) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let typed = self.shell.types(&block.text).await;
            let compared = match &block.answer {
                _ if typed.ended_well == (block.kind == "bash fails") => Err("it ended otherwise".to_owned()),
                None => Ok(()),
                Some(Answer::Text(text)) => {
                    self.names.compare_text(text, &format!("{}{}", typed.stdout, typed.stderr))
                }
                Some(Answer::Json(written)) => serde_json::from_str(&typed.stdout)
                    .map_err(|e| e.to_string())
                    .and_then(|got| self.names.compare(written, &got)),
            };
            match compared {
                Ok(()) => break,
                // What the page repeats, as a person does.
                Err(_) if block.kind == "bash until" && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(why) => panic!(
                    "{}, line {}: {why}\n{}\n{}\n{}",
                    self.page, block.line, block.text, typed.stdout, typed.stderr
                ),
            }
        }
        for (name, value) in self.names.texts() {
            self.is_told(name, value).await;
        }
    }

    /// Waits for the end of what runs; panics unless `runlane verify` finds nothing wrong, and nothing left to do.
    pub async fn finds_all_well(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.shell.types("runlane lane list").await.stdout.starts_with("Nothing waits or runs") {
            assert!(tokio::time::Instant::now() < deadline, "something still runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let typed = self.shell.types("runlane verify --quiescent").await;
        assert!(typed.ended_well && typed.stdout.starts_with("0 violations; "), "{typed:#?}");
    }
}

/// Without what only sqlx understands.
fn for_libpq(url: &str) -> String {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let known: Vec<&str> = query.split('&').filter(|p| !p.starts_with("statement-cache-capacity")).collect();
    format!("{place}?{}", known.join("&"))
}
