//! What the program weighs, and how long a change takes to be checked.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runlane::domain::clock::{Clock, SystemClock};

use crate::report::{figure, heading, median, ms};
use crate::scale::Scale;
use crate::stage::Stage;

/// Strips a copy of the program as it was built here, and has cargo check the library after a change.
pub fn measure(stage: &Stage, scale: &Scale) -> anyhow::Result<()> {
    heading("the program and its build");
    let copy = stage.dir().join("runlane");
    std::fs::copy(env!("CARGO_BIN_EXE_runlane"), &copy)?;
    let stripped = Command::new("strip").arg(&copy).status().context("strip, of binutils")?;
    ensure!(stripped.success(), "strip ended with {stripped}");
    let bytes = std::fs::metadata(&copy)?.len();
    figure(
        "the program, stripped, without link-time optimisation",
        &format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    );
    // Without what a development build has compiled before, this would compile every dependency.
    if scale.is_short() {
        return Ok(());
    }
    let first = check()?;
    figure("cargo check, whatever of it had to be done anew", &ms(first));
    let source = std::fs::File::options()
        .append(true)
        .open(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))?;
    let mut times = Vec::new();
    for _ in 0..scale.rounds {
        source.set_modified(SystemClock.now().into())?;
        times.push(check()?);
    }
    figure("cargo check after a change of the library", &ms(median(&times)));
    Ok(())
}

fn check() -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let status = Command::new(env!("CARGO"))
        .args(["check", "--locked", "--quiet"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "cargo check ended with {status}");
    Ok(begun.elapsed())
}
