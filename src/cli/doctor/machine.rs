//! This machine: its settings, its disk, and whether workers start.

use std::time::Duration;

use serde_json::json;

use super::report::Report;
use crate::config::Config;
use crate::domain::JobKind;
use crate::domain::job::Claim;
use crate::domain::provider::PROVIDERS;
use crate::executor::{Executor, Job, Outcome, Settings, Stop};

/// Less room than this for the embedded PostgreSQL needs somebody.
const ROOM_LOW_MIB: u64 = 1_024;
/// Less than this is as good as none.
const ROOM_MIN_MIB: u64 = 128;
/// How long a worker may take for a probe that needs no network.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// What the settings lack.
pub fn settings(config: &Config, report: &mut Report) {
    if config.jwt_secret.is_none() {
        report.warning(
            "settings",
            "RUNLANE_JWT_SECRET is not set: `serve` refuses to start, and no token can be made",
        );
    } else {
        report.ok("settings", "can be used");
    }
}

/// Which models this process's workers can call; no key is shown.
pub fn providers(config: &Config, report: &mut Report) {
    let served = config.providers.names();
    let lacking: Vec<String> = PROVIDERS
        .iter()
        .filter(|p| !served.iter().any(|name| name == p.name))
        .filter_map(|p| Some(format!("{} ({})", p.name, p.access.as_ref()?.needed())))
        .collect();
    let mut message = format!("served: {}", served.join(", "));
    if !lacking.is_empty() {
        message.push_str("; not served, for want of the variable: ");
        message.push_str(&lacking.join(", "));
    }
    report.ok("providers", message);
}

/// The room for the embedded PostgreSQL, where that is what would be used.
pub fn disk(config: &Config, report: &mut Report) {
    if config.database_url.is_some() {
        return;
    }
    // Where nothing is yet, the room is that of the closest directory above.
    let path = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let Some(existing) = path.ancestors().find(|p| p.exists()) else { return };
    let free = match nix::sys::statvfs::statvfs(existing) {
        Ok(fs) => fs.blocks_available().saturating_mul(fs.fragment_size()) / (1 << 20),
        Err(error) => return report.error("disk", format!("{}: {error}", existing.display())),
    };
    let message = format!("{free} MiB free for {} (RUNLANE_DATA_DIR)", config.data_dir.display());
    if free < ROOM_MIN_MIB {
        report.error("disk", format!("{message}: make room, or nothing can be stored"));
    } else if free < ROOM_LOW_MIB {
        report.warning("disk", format!("{message}: make room soon"));
    } else {
        report.ok("disk", message);
    }
}

/// Whether a worker starts and answers for a probe.
pub async fn workers(config: &Config, report: &mut Report) {
    let executor = Executor::new(Settings::from_config(config));
    let deadline = u64::try_from(PROBE_MAX.as_millis()).unwrap_or(u64::MAX);
    let request = json!({
        "v": 1, "type": "job", "kind": JobKind::ProbeScenario.as_str(), "jobId": "doctor", "runId": "doctor",
        "attempt": 1, "deadlineMs": deadline,
        "scenario": { "key": "doctor", "preamble": null, "prompt": "Are you well?", "followups": [], "dimensions": {} },
        "model": { "id": "mock/echo" },
        "params": { "temperature": null, "maxTokens": null, "maxTurns": null, "seed": 0 },
        "scoring": null, "pricing": null,
    });
    let job = Job {
        claim: Claim { job_id: 0, number: 1 },
        kind: JobKind::ProbeScenario,
        provider: None,
        request: request.to_string().into_bytes(),
        job_id: "doctor".to_owned(),
        deadline: PROBE_MAX,
        alone: true,
        may_be_unchanged: false,
    };
    let python = config.python.display();
    let finished = executor.run(job, Stop::never()).await;
    match finished.outcome {
        Outcome::Completed(_) => report.ok("workers", format!("{python} starts and answers")),
        Outcome::Failed(error) => {
            report.error(
                "workers",
                format!("{python} starts and fails ({}): {}", error.code.as_str(), error.message),
            );
        }
        Outcome::Lost { message, .. } | Outcome::Unstartable { message, .. } => {
            let last = finished.stderr_tail.lines().last().unwrap_or_default().to_owned();
            report.error(
                "workers",
                format!("{python} (RUNLANE_PYTHON) runs no worker: {message} {last}").trim_end(),
            );
        }
        Outcome::Cancelled { .. } | Outcome::Released { .. } => {
            report.error("workers", format!("{python} was stopped before it answered"));
        }
    }
    executor.shutdown().await;
}
