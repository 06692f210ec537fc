//! Faults on purpose: real server processes, a real PostgreSQL for each test, real Python workers, a real client.
//!
//! `make chaos` runs the long form; `make test` runs the short one (`CHAOS_SCALE`). Names on the command line choose
//! tests: `cargo test --test chaos -- R1 R4`. Every test prints one line with its figures and the seed of its faults;
//! `CHAOS_SEED` repeats them. What went wrong stands below the line; the processes' logs are kept, where it says.

mod books;
mod client;
mod clocks;
mod commit;
mod disk;
mod freeze;
mod herd;
mod kill_api;
mod kill_nodes;
mod kill_postgres;
mod network;
mod node;
mod numbers;
mod plan;
mod poison;
mod postgres;
mod procs;
#[expect(dead_code, reason = "the integration tests use what these do not")]
#[path = "../support/proxy/mod.rs"]
mod proxy;
mod sigterm;
mod snapshot;
mod soak;
#[path = "../support/sockets.rs"]
mod sockets;
mod stage;
mod storm;
mod verdict;
mod watch;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use plan::Plan;
use verdict::Verdict;

type Run = fn(Plan) -> BoxFuture<'static, anyhow::Result<Verdict>>;

/// Whether a test measures times for which the machine must be its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Alone,
    Beside,
}
use Where::{Alone, Beside};

macro_rules! tests {
    ($($id:literal $where:ident $run:path;)+) => {
        [$(($id, $where, (|plan| $run(plan).boxed()) as Run),)+]
    };
}

/// Tests that run at a time, where they may. They mostly wait.
const AT_ONCE: usize = 2;
/// In the short form times are judged only on a machine that is ours but for this part. The long form has no excuse.
const OTHERS_MAX: f64 = 0.25;
/// No test takes longer: whatever hangs is a failure that says so.
const LONGEST: Duration = Duration::from_secs(3 * 3_600);

fn main() -> ExitCode {
    let tests = tests! {
        "R1" Alone kill_nodes::run;
        "R2" Beside kill_api::run;
        "R3" Beside kill_postgres::run;
        "R4" Beside freeze::run;
        "R5" Beside commit::run;
        "R6" Beside network::run;
        "R7" Beside clocks::run;
        "R8" Alone sigterm::run;
        "R9" Alone poison::run;
        "R10" Alone herd::run;
        "R11" Beside storm::run;
        "R12" Alone snapshot::run;
        "R13" Beside disk::run;
        "R14" Beside kill_nodes::run_paused;
        "R16" Beside soak::run;
    };
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<_> =
        tests.into_iter().filter(|(id, ..)| wanted.is_empty() || wanted.iter().any(|w| w == id)).collect();
    if chosen.is_empty() {
        eprintln!("no such test: {wanted:?}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = stage::sweep() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    procs::adopt_orphans();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let failed = runtime.block_on(async {
        let plan = match Plan::from_env() {
            Ok(plan) => plan,
            Err(error) => {
                eprintln!("{error:#}");
                return 1;
            }
        };
        // The long form measures what it says; only the short one must also be quick.
        let at_once = if plan.is_long { 1 } else { AT_ONCE };
        let (alone, beside): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, how, _)| *how == Alone);
        let results: Vec<bool> = stream::iter(beside)
            .map(|(id, _, run)| one(id, run, plan))
            .buffer_unordered(at_once)
            .chain(stream::iter(alone).then(|(id, _, run)| one(id, run, plan)))
            .collect()
            .await;
        results.into_iter().filter(|passed| !passed).count()
    });
    drop(runtime);
    // Whatever outlived its parent has become our child; what is left of a test that was given up needs a moment.
    let orphans = procs::orphans_after(Duration::from_secs(5));
    if !orphans.is_empty() {
        println!("orphans: {orphans:?}");
    }
    if let Err(error) = stage::sweep() {
        println!("{error:#}");
    }
    if failed == 0 && orphans.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one test and prints its line. `false`: it failed.
async fn one(id: &str, run: Run, plan: Plan) -> bool {
    let plan = plan.of(id);
    let (began, others) = (Instant::now(), procs::Others::watch());
    // In a task of its own, so that a panic fails this test only.
    let mut verdict = match tokio::time::timeout(LONGEST, tokio::spawn(run(plan))).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(Ok(Err(error))) => Verdict::broken(format!("{error:#}")),
        Ok(Err(panic)) => Verdict::broken(format!("{panic}")),
        Err(_) => Verdict::broken(format!("it did not end within {LONGEST:?}")),
    };
    let share = others.share();
    verdict.figure("others_cpu", format!("{:.0}%", share * 100.0));
    verdict.judge_times(!plan.is_long && share > OTHERS_MAX);
    print!("{}", verdict.line(id, plan.seed, began.elapsed()));
    verdict.passed()
}
