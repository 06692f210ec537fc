//! A shell that remembers what was exported and defined in it, as a reader's does.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Where the pages say that the server is.
const WRITTEN_ADDRESS: &str = "127.0.0.1:8080";

pub struct Shell {
    dir: PathBuf,
    environment: Vec<(String, String)>,
    /// Where the server really is.
    address: String,
}

/// What was typed printed, and how it ended.
#[derive(Debug)]
pub struct Typed {
    pub ended_well: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Shell {
    /// One in `dir`, which its user may write, with these variables over the test's own.
    pub fn new(dir: &Path, environment: Vec<(String, String)>, address: String) -> Self {
        Self { dir: dir.to_owned(), environment, address }
    }

    /// Types `text` and waits for its end.
    pub async fn types(&self, text: &str) -> Typed {
        let text = text.replace(WRITTEN_ADDRESS, &self.address);
        let script = format!(
            "set -euo pipefail; if [ -e .exports ]; then . ./.exports; fi\n{text}\n{{ export -p; declare -f; }} > .exports"
        );
        let typed = Command::new("bash")
            .arg("-c")
            .arg(script)
            .current_dir(&self.dir)
            .env_remove("DATABASE_URL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Typed { ended_well: typed.status.success(), stdout: text(typed.stdout), stderr: text(typed.stderr) }
    }

    /// A variable that was exported.
    pub fn variable(&self, name: &str) -> String {
        let exports = std::fs::read_to_string(self.dir.join(".exports")).unwrap_or_default();
        let start = format!("declare -x {name}=\"");
        let found = exports.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'));
        found.unwrap_or_else(|| panic!("{name} is not exported yet")).to_owned()
    }
}
