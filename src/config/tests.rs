//! What configurations are accepted, and how mistakes are told.

use std::collections::BTreeMap;

use super::*;

fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Config::from_lookup(&|name| map.get(name).cloned())
}

#[test]
fn defaults_are_valid() {
    let config = with(&[]).unwrap();
    assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 32);
    assert_eq!(config.kind(JobKind::AnalyzeDeep).concurrency, 1);
}

#[test]
fn every_mistake_is_named_at_once() {
    let ConfigError(problems) = with(&[
        ("RUNLANE_LISTEN", "nowhere"),
        ("RUNLANE_PAGE_MAX", "0"),
        ("RUNLANE_JWT_SECRET", "short"),
        ("RUNLANE_CORS_ORIGINS", "*"),
        ("RUNLANE_RETRY_LIMIT_PROBE_SCENARIO", "many"),
        ("RUNLANE_LEASE_RENEWAL_MS", "5000"),
        ("RUNLANE_POSTGRES_SOURCE", "docker"),
    ])
    .unwrap_err();
    let mut named: Vec<&str> = problems.iter().map(|p| p.variable.as_str()).collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "RUNLANE_CORS_ORIGINS",
            "RUNLANE_JWT_SECRET",
            "RUNLANE_LEASE_RENEWAL_MS",
            "RUNLANE_LISTEN",
            "RUNLANE_PAGE_MAX",
            "RUNLANE_POSTGRES_SOURCE",
            "RUNLANE_RETRY_LIMIT_PROBE_SCENARIO",
        ]
    );
}

#[test]
fn a_short_secret_is_not_repeated_in_the_error() {
    let error = with(&[("RUNLANE_JWT_SECRET", "hunter2")]).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn the_nodes_own_secrets_cannot_be_passed_to_workers() {
    let ConfigError(problems) =
        with(&[("RUNLANE_WORKER_ENV", "MY_KEY, DATABASE_URL,RUNLANE_JWT_SECRET,PGPASSWORD,A=B")])
            .unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert_eq!(with(&[("RUNLANE_WORKER_ENV", "MY_KEY, OTHER")]).unwrap().worker_env, ["MY_KEY", "OTHER"]);
}

#[test]
fn a_kind_without_a_number_of_its_own_takes_the_general_one() {
    let config = with(&[("RUNLANE_WORKER_CONCURRENCY", "7")]).unwrap();
    assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 7);
    let config = with(&[("RUNLANE_WORKER_CONCURRENCY_PROBE_SCENARIO", "9")]).unwrap();
    assert_eq!(config.kind(JobKind::ProbeScenario).concurrency, 9);
}

#[test]
fn durations_have_a_unit_and_a_range() {
    let archive = with(&[
        ("RUNLANE_MAINTENANCE_INTERVAL", "50ms"),
        ("RUNLANE_ARCHIVE_AFTER", "36h"),
        ("RUNLANE_DELETE_AFTER", "2d"),
        ("RUNLANE_RETENTION_DAYS_FAILED", "0"),
    ])
    .unwrap()
    .archive;
    assert_eq!(archive.interval.as_millis(), 50);
    assert_eq!((archive.after.as_secs(), archive.delete_after.as_secs()), (36 * 3_600, 2 * 86_400));
    assert_eq!(archive.keep_days, [90, 0, 30]);
    for wrong in ["30", "s", "1.5h", "-1s", "49ms", "2d", "1 h", "99999999999999999999d", "10ü"] {
        let ConfigError(problems) = with(&[("RUNLANE_MAINTENANCE_INTERVAL", wrong)]).unwrap_err();
        assert_eq!(problems[0].variable, "RUNLANE_MAINTENANCE_INTERVAL", "{wrong}");
    }
}

#[test]
fn env_example_is_the_committed_file() {
    let committed = include_str!("../../.env.example");
    assert_eq!(committed, env_example(), "run `make generate`");
}
