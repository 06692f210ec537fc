//! `runlane demo`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::process::{Home, Output, Running, finish, with_password};
use crate::support::postgres::empty_database;
use crate::support::stub::Stub;

/// The demo with a lease that no pause of a busy machine's disk brings into danger: that would be said, and is another
/// test's matter.
fn demo(home: &Home) -> Command {
    let mut command = home.runlane(&["demo"]);
    command.env("RUNLANE_LEASE_MS", "60000");
    command
}

#[track_caller]
fn shows_results(output: Output) {
    assert_eq!(output.stderr, "", "nothing went wrong");
    shows_results_in_spite_of_it(output);
}

#[track_caller]
fn shows_results_in_spite_of_it(output: Output) {
    let output = output.ok();
    for part in [
        "Definition “value-trade-offs”",
        "240 of 240 probes completed.",
        "Ratings by model",
        "What moves the ratings",
        "Spearman",
        "Coverage: 240 of 240 probes used, 0 failed.",
        "/graphql",
    ] {
        assert!(output.stdout.contains(part), "{part} is missing: {output:#?}");
    }
    for line in output.stdout.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
}

#[tokio::test]
async fn it_runs_in_an_empty_directory_and_again_and_leaves_nothing_running() {
    let home = Home::new();
    for version in ["version 1:", "version 2:"] {
        let output = finish(demo(&home)).await;
        assert!(output.stdout.contains(version), "{output:#?}");
        shows_results(output);
        home.is_quiet();
    }
}

#[tokio::test]
async fn it_runs_after_one_that_was_killed_in_the_middle() {
    let home = Home::new();
    let first = Running::start(&mut demo(&home));
    first.prints("240 probes over 3 models").await;
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end().await.status.code(), None);
    shows_results(finish(demo(&home)).await);
    home.is_quiet();
}

/// Processes that stand still until this is dropped, however the test ends.
struct StandingStill(Vec<Pid>);

impl Drop for StandingStill {
    fn drop(&mut self) {
        self.0.iter().for_each(|&process| kill(process, Signal::SIGCONT).expect("it is there"));
    }
}

/// Stops the PostgreSQL in `home` where it stands.
fn stand_still(home: &Home) -> StandingStill {
    let file = std::fs::read_to_string(home.data().join("postgres/postmaster.pid")).unwrap();
    let parent = Pid::from_raw(file.lines().next().expect("its number").parse().unwrap());
    // It neither makes nor buries any more, so the children are those that there are.
    kill(parent, Signal::SIGSTOP).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let children = children.split_whitespace().map(|number| Pid::from_raw(number.parse().unwrap()));
    children.clone().for_each(|child| kill(child, Signal::SIGSTOP).unwrap());
    StandingStill(children.chain([parent]).collect())
}

#[tokio::test]
async fn it_says_that_the_database_stands_still_and_goes_on_when_it_does() {
    let home = Home::new();
    // The lease that is the default: it runs out.
    let running = Running::start(&mut home.runlane(&["demo"]));
    running.prints("240 probes over 3 models").await;
    let stopped = stand_still(&home);
    running.logs("its jobs are given up").await;
    drop(stopped);
    shows_results_in_spite_of_it(running.end().await);
    home.is_quiet();
}

#[tokio::test]
async fn it_is_interrupted_in_order() {
    let home = Home::new();
    let running = Running::start(&mut demo(&home));
    running.prints("240 probes over 3 models").await;
    running.signal(Signal::SIGINT);
    let output = running.end().await;
    assert!(output.refusal().contains("interrupted"), "{output:#?}");
    home.is_quiet();
}

#[tokio::test]
async fn it_uses_the_database_that_is_configured() {
    let home = Home::new();
    let mut command = demo(&home);
    command.env("DATABASE_URL", with_password(&empty_database().await));
    shows_results(finish(command).await);
    assert!(!home.data().join("postgres").exists(), "no private server was made");
}

#[tokio::test]
async fn without_its_python_one_line_says_what_to_do() {
    let home = Home::new();
    let mut command = demo(&home);
    command.env("RUNLANE_PYTHON", "no/such/python");
    let output = finish(command).await;
    let refusal = output.refusal();
    assert!(refusal.contains("RUNLANE_PYTHON") && refusal.contains("make python"), "{refusal}");
    home.is_quiet();
}

#[tokio::test]
async fn it_asks_the_models_that_are_named_and_says_what_they_lack() {
    let home = Home::new();
    let stub = Stub::start();
    let mut command = demo(&home);
    command
        .env("MODELS", "openai/rater;spread=1, anthropic/rater;spread=1")
        .env("OPENAI_API_KEY", "sk-the-demos-own")
        .env("OPENAI_BASE_URL", stub.url())
        .env("ANTHROPIC_API_KEY", "sk-ant-the-demos-own")
        .env("ANTHROPIC_BASE_URL", stub.root());
    let output = finish(command).await.ok();
    for part in
        ["160 probes over 2 models", "160 of 160 probes completed.", "openai/rater", "anthropic/rater"]
    {
        assert!(output.stdout.contains(part), "{part} is missing: {output:#?}");
    }
    assert!(!output.stdout.contains("mock") && !output.stdout.contains("own"), "{output:#?}");
    let seen = stub.stats().await;
    assert_eq!((seen.keys["sk-the-demos-own"], seen.keys["sk-ant-the-demos-own"]), (80, 80));
    for (models, says) in [
        ("mistral/large", "mistral/large cannot be called: set MISTRAL_API_KEY"),
        ("nobody/x", "unknown provider"),
    ] {
        let mut command = demo(&home);
        command.env("MODELS", models);
        let output = finish(command).await;
        let refusal = output.refusal();
        assert!(refusal.contains("MODELS") && refusal.contains(says), "{refusal}");
    }
}
