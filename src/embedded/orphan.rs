//! Servers that an earlier owner left behind.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::error::{During, EmbeddedError};
use super::place::Place;

/// How often a process that is not our child is looked at: nothing reports its end.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until no process of an earlier server is left on the cluster, and asks a left one to shut down.
///
/// The caller holds the lock, so no living owner has started what is found here.
pub(super) async fn end(place: &Place, deadline: Instant, limit: Duration) -> Result<(), EmbeddedError> {
    let file = place.data.join("postmaster.pid");
    let recorded = read(&file)?.map_or(0, |record| record.pid);
    let found = processes(place, recorded)?;
    if let Some(server) = found.iter().find(|process| process.pid == recorded) {
        if !server.ours {
            return Err(EmbeddedError::ForeignServer { data: place.data.clone(), pid: recorded });
        }
        tracing::info!(pid = recorded, "an earlier owner's PostgreSQL still runs: it is asked to shut down");
        // Usually it has had the signal already, when its owner ended; a second one changes nothing.
        match kill(Pid::from_raw(recorded), Signal::SIGINT) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(std::io::Error::from(errno)).during("stop the server of", &place.data),
        }
    }
    let mut left = found;
    while !left.is_empty() {
        if Instant::now() >= deadline {
            let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
            return Err(EmbeddedError::Timeout {
                what: format!("the end of an earlier owner's PostgreSQL (processes {pids:?})"),
                limit,
                variable: "RUNLANE_POSTGRES_START_TIMEOUT_MS",
            });
        }
        tokio::time::sleep(LOOK).await;
        left = processes(place, recorded)?;
    }
    // The recorded number may belong to another program by now (in a container it often does), which the server would
    // take for its predecessor, refusing to start. Where that cannot be seen, the server's own check decides.
    match read(&file)? {
        Some(record) if is_no_server(record.pid, &place.data) => {
            std::fs::remove_file(&file).during("remove", &file)
        }
        _ => Ok(()),
    }
}

/// What a running server says about itself in `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: i32,
    pub(super) ready: bool,
}

/// Reads `postmaster.pid`; `None` when it is missing or not yet written.
pub(super) fn read(file: &Path) -> Result<Option<Record>, EmbeddedError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during("read", file),
    }
}

/// Line 1 is the process, line 8 the state.
fn parse(text: &str) -> Option<Record> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    Some(Record { pid: lines.first()?.parse().ok()?, ready: lines.get(7) == Some(&"ready") })
}

/// A server process on the cluster.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// Whether Runlane started it: its title then has the cluster's name.
    ours: bool,
}

/// The server processes on the cluster: by its name in their titles, or by their working directory. The latter is
/// closed to us when the server runs as another user and root has few capabilities.
#[cfg(target_os = "linux")]
fn processes(place: &Place, _recorded: i32) -> Result<Vec<Process>, EmbeddedError> {
    let proc = Path::new("/proc");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc).during("list", proc)? {
        let entry = entry.during("list", proc)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !is_postgres(pid) {
            continue;
        }
        // A process may end while it is looked at; it is then none that is left.
        let Ok(title) = std::fs::read(entry.path().join("cmdline")) else { continue };
        // One that is ending has no title any more, though its directory can still be seen: it is waited for.
        let ours = title.is_empty() || String::from_utf8_lossy(&title).contains(&place.cluster_name);
        let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|dir| dir == place.data);
        if here || ours && !title.is_empty() {
            found.push(Process { pid, ours });
        }
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
fn is_postgres(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"))
}

/// Whether `pid` surely does not serve the cluster: it is another program, or has ended and was not yet reaped.
#[cfg(target_os = "linux")]
fn is_no_server(pid: i32, data: &Path) -> bool {
    // `15 (postgres) Z 1 …`; unreadable when there is no such process, which the server sees for itself.
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
        || !is_postgres(pid)
        || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir != data)
}

/// The recorded server, if it still runs; its children end by themselves when it does.
#[cfg(not(target_os = "linux"))]
fn processes(place: &Place, recorded: i32) -> Result<Vec<Process>, EmbeddedError> {
    if recorded <= 0 {
        return Ok(Vec::new());
    }
    let ps = Path::new("ps");
    let output = std::process::Command::new(ps)
        .args(["-o", "args=", "-p", &recorded.to_string()])
        .output()
        .during("run", ps)?;
    let arguments = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = arguments.contains(&place.cluster_name);
    let here = ours || arguments.contains(&*place.data.to_string_lossy());
    Ok(if here { vec![Process { pid: recorded, ours }] } else { Vec::new() })
}

#[cfg(not(target_os = "linux"))]
fn is_no_server(_pid: i32, _data: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_only_when_line_eight_says_so() {
        let starting = "42\n/data\n1700000000\n5432\n/data/socket\n\n  123 456\nstarting\n";
        let record = parse(starting).unwrap();
        assert_eq!(record, Record { pid: 42, ready: false });
        assert!(parse(&starting.replace("starting", "ready   ")).unwrap().ready);
        assert!(!parse("42\n/data\n").unwrap().ready, "half written");
        assert_eq!(parse(""), None);
    }
}
