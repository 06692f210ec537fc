//! Workers leave nothing behind: no file, no process, however they end and however the node ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::executor::{Executor, Outcome, Settings};
use serde_json::{Value, json};

use super::support::*;
use crate::queue::support::is_running;

/// Settings for workers below a directory of the test's own.
fn within(directory: &Path) -> Settings {
    Settings { work_dir: directory.to_owned(), ..impatient("serve") }
}

/// What is in the directory, save the lock at the door.
fn contents(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| !path.ends_with("lock")).collect()
}

#[tokio::test]
async fn every_worker_has_an_empty_private_directory_that_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let executor = Executor::new(within(directory.path()));
    let mut places = Vec::new();
    for job in [job(1, &json!({ "act": "place" })), alone(2, &json!({ "act": "place" }))] {
        let place: Value = serde_json::from_str(&response(&run(&executor, job).await)).unwrap();
        assert_eq!((&place["entries"], &place["cwd"]), (&json!([]), &place["TMPDIR"]));
        let path = PathBuf::from(place["cwd"].as_str().unwrap());
        assert!(path.starts_with(directory.path().canonicalize().unwrap()), "{path:?}");
        places.push(path);
    }
    assert_ne!(places[0], places[1]);
    // The warm one lives; the other is gone with what it wrote, also when it dies on the way.
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(places[0].metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!places[1].exists());
    let write = json!({ "act": "litter", "then": "kill" });
    for job in [alone(3, &write), job(4, &write)] {
        assert!(matches!(run(&executor, job).await.outcome, Outcome::Lost { .. }));
    }
    bounded(executor.shutdown()).await;
    let house = contents(directory.path());
    assert_eq!(house.len(), 1);
    assert_eq!(contents(&house[0]), [] as [PathBuf; 0], "no directory and no record");
    drop(executor);
    assert_eq!(contents(directory.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told_and_blames_no_job() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let executor = Executor::new(within(&file.path().join("below-a-file")));
    let error = executor.prepare().await.unwrap_err().to_string();
    assert!(error.contains("below-a-file"), "{error}");
    for job in [job(1, &json!({ "act": "ok" })), alone(2, &json!({ "act": "ok" }))] {
        match run(&executor, job).await.outcome {
            Outcome::Unstartable { message, .. } => assert!(message.contains("below-a-file"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn a_daemon_that_a_worker_started_ends_with_the_worker() {
    let executor = Executor::new(impatient("serve"));
    for (then, is_alone) in [("exit", false), ("kill", true), ("ok", true)] {
        let fifo = Fifo::new();
        let act = json!({ "act": "fork", "fifo": fifo.path, "then": then, "daemon": true });
        let job = if is_alone { alone(1, &act) } else { job(1, &act) };
        let (_, pid) = tokio::join!(run(&executor, job), async {
            let mut file = fifo.open().await;
            let pid = told(&mut file).await;
            // It has its own session, no parent, ignores SIGTERM, and holds the FIFO until it is dead.
            ended(file).await;
            pid
        });
        // A process lets go of its files a moment before it is dead.
        bounded(async {
            while is_running(pid) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    finish(&executor, []).await;
}

#[tokio::test]
async fn five_hundred_grandchildren_end_with_their_worker() {
    let executor = Executor::new(Settings { term_grace: BOUND, ..settings("serve") });
    let act = json!({ "act": "swarm", "n": 500 });
    let finished = run(&executor, alone(1, &act)).await;
    let pids: Vec<u32> = serde_json::from_str(&response(&finished)).unwrap();
    assert_eq!(pids.len(), 500);
    let left: Vec<_> = pids.into_iter().filter(|pid| is_running(*pid)).collect();
    assert_eq!(left, [] as [u32; 0]);
    finish(&executor, []).await;
}

/// Where the node of the next test works, and the FIFO of its worker.
const NODE: &str = "TEST_NODE_PLACE";

/// No test: the program that the next test starts and kills.
#[tokio::test]
#[ignore = "is run by the test below, as a process of its own"]
async fn a_node_that_will_be_killed() {
    let place = PathBuf::from(std::env::var_os(NODE).expect("the test below sets it"));
    let executor = Executor::new(within(&place.join("work")));
    let acts = ["warm", "alone"].map(|name| {
        json!({ "act": "fork", "fifo": place.join(name), "then": "freeze", "daemon": true, "worker_fifo": place.join(format!("{name}-worker")) })
    });
    tokio::join!(run(&executor, job(1, &acts[0])), run(&executor, alone(2, &acts[1])));
}

#[tokio::test]
async fn a_killed_node_takes_its_workers_along_and_the_next_one_ends_their_daemons() {
    let directory = tempfile::tempdir().unwrap();
    let fifos = ["warm-worker", "warm", "alone-worker", "alone"].map(|name| directory.path().join(name));
    for fifo in &fifos {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "executor::leftovers::a_node_that_will_be_killed", "--ignored"])
        .env(NODE, directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut open = Vec::new();
    for fifo in &fifos {
        let mut file = bounded(tokio::fs::File::open(fifo)).await.unwrap();
        let pid = told(&mut file).await;
        open.push((pid, file));
    }
    let [(_, warm), (warm_daemon, warm_daemon_file), (_, one), (one_daemon, one_daemon_file)] =
        <[_; 4]>::try_from(open).unwrap();
    kill(Pid::from_raw(node.id().cast_signed()), Signal::SIGKILL).unwrap();
    node.wait().unwrap();
    // The workers end by themselves: the FIFOs that they hold are closed.
    ended(warm).await;
    ended(one).await;
    assert!(is_running(warm_daemon) && is_running(one_daemon), "daemons are what is left");
    let work = directory.path().join("work");
    let house = contents(&work);
    assert_eq!(house.len(), 1, "and a directory");

    // A node that lives is left alone; the dead one's is cleared away.
    let neighbour = Executor::new(within(&work));
    bounded(neighbour.prepare()).await.unwrap();
    ended(warm_daemon_file).await;
    ended(one_daemon_file).await;
    assert!(!house[0].exists());
    assert!(completed(&run(&neighbour, job(1, &json!({ "act": "ok" }))).await));
    let next = Executor::new(within(&work));
    bounded(next.prepare()).await.unwrap();
    assert_eq!(contents(&work).len(), 2);
    assert!(completed(&run(&neighbour, alone(2, &json!({ "act": "ok" }))).await), "it works on");
    finish(&neighbour, []).await;
    finish(&next, []).await;
}

#[tokio::test]
async fn a_worker_that_outlived_its_node_is_ended_by_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let house = directory.path().join("gone");
    std::fs::create_dir(&house).unwrap();
    // Processes without any mark: one that the record names, and one whose number it names with another start.
    let mut sleepers = [0, 1].map(|_| {
        use std::os::unix::process::CommandExt;
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    });
    let boot = runlane::process::kin::boot().unwrap();
    for (n, (sleeper, wrong)) in sleepers.iter().zip([0, 1]).enumerate() {
        let started = runlane::process::kin::started(sleeper.id()).unwrap() + wrong;
        std::fs::write(house.join(format!("{n}.pid")), format!("{} {started} {boot}\n", sleeper.id()))
            .unwrap();
    }
    let executor = Executor::new(within(directory.path()));
    bounded(executor.prepare()).await.unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(sleepers[0].wait().unwrap().signal(), Some(9));
    assert!(sleepers[1].try_wait().unwrap().is_none(), "a number that was given to another");
    sleepers[1].kill().unwrap();
    sleepers[1].wait().unwrap();
    assert!(!house.exists());
    finish(&executor, []).await;
}
