//! Probes that call models: real workers and client libraries, a stub for the provider.

mod at_once;
mod calls;
mod keys;
mod stub;

use std::path::Path;

use crate::support::stub::Stub;

/// The keys of the tests' providers.
pub const KEYS: [(&str, &str); 5] = [
    ("OPENAI_API_KEY", "sk-the-secret-of-openai"),
    ("ANTHROPIC_API_KEY", "sk-ant-the-secret-of-anthropic"),
    ("GEMINI_API_KEY", "the-secret-of-google"),
    ("MISTRAL_API_KEY", "the-secret-of-mistral"),
    ("OPENAI_COMPATIBLE_API_KEY", "the-secret-of-the-gateway"),
];

/// The base URLs by which a node finds the stub.
pub fn urls(stub: &Stub) -> [(&'static str, String); 6] {
    [
        ("OPENAI_BASE_URL", stub.url()),
        ("OPENAI_COMPATIBLE_BASE_URL", stub.url()),
        ("OLLAMA_BASE_URL", stub.url()),
        ("ANTHROPIC_BASE_URL", stub.root()),
        ("GOOGLE_BASE_URL", stub.root()),
        ("MISTRAL_BASE_URL", format!("{}/mistral", stub.root())),
    ]
}

/// A running Python worker.
pub struct Process {
    pub pid: i32,
    /// Its environment, one variable a line.
    pub environment: String,
}

/// The workers whose directories are below `work`.
pub fn workers(work: &Path) -> Vec<Process> {
    let mark = format!("RUNLANE_WORK_DIR={}/", work.display());
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let all = pids.filter_map(|pid: i32| {
        // A process that ends meanwhile has none.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).replace('\0', "\n");
        environment.contains(&mark).then_some(Process { pid, environment })
    });
    all.collect()
}

impl Process {
    /// What its file descriptors are, as the system names them.
    fn descriptors(&self) -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.map(|link| link.to_string_lossy().into_owned()).collect()
    }

    /// Whether its event loop runs: the client is imported by then.
    pub fn is_ready(&self) -> bool {
        self.descriptors().iter().any(|name| name.contains("eventpoll"))
    }

    /// Its connections, besides the pair of sockets by which its event loop wakes itself.
    pub fn connections(&self) -> usize {
        self.descriptors().iter().filter(|name| name.starts_with("socket:")).count().saturating_sub(2)
    }
}

/// Kilobytes of memory that are this process's part (`Pss`).
pub fn memory_kb(process: &Process) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a sum");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
