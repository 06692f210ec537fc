//! Numbers that the documentation names are those of the configuration.

use runlane::config::Config;
use runlane::domain::staleness::Stage;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// `60 min` or `24 h`, in milliseconds.
fn millis(text: &str) -> Option<i64> {
    let (number, unit) = text.split_once(' ')?;
    let seconds = match unit {
        "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    Some(number.parse::<i64>().ok()? * seconds * 1_000)
}

#[test]
fn the_staleness_numbers_of_the_documentation_are_the_defaults() {
    let config = Config::from_lookup(&|_| None).unwrap();
    let defaults = config.staleness_thresholds();
    for &stage in Stage::ALL {
        let row = OPERATIONS.lines().find(|line| line.starts_with(&format!("| `{stage}`: ")));
        let row = row.unwrap_or_else(|| panic!("no row for {stage}"));
        let cell = row.split('|').nth(3).unwrap().trim();
        let (number, variable) = cell.split_once(", ").unwrap_or_else(|| panic!("{row}"));
        let said = millis(number).unwrap_or_else(|| panic!("{row}"));
        let of_stage: Vec<i64> =
            defaults.iter().filter(|t| t.stage == stage).map(|t| t.threshold_ms).collect();
        assert!(!of_stage.is_empty() && of_stage.iter().all(|&ms| ms == said), "{row}: {of_stage:?}");
        let stem = variable.trim_matches('`').replace("_<KIND>", "_PROBE_SCENARIO");
        let settings = runlane::config::settings();
        let setting = settings.iter().find(|s| s.variable == stem).unwrap_or_else(|| panic!("no {stem}"));
        assert_eq!(setting.default, said.to_string(), "{stem}");
    }
    let n = &config.numbers;
    for sentence in [
        format!("every {} seconds (`RUNLANE_STALENESS_INTERVAL_MS`)", n.staleness_interval_ms / 1_000),
        format!("{} % of a threshold it warns", n.staleness_warn_percent),
        format!("after `RUNLANE_STALENESS_REQUEUES_MAX` ({}) times", n.staleness_requeues_max),
    ] {
        assert!(OPERATIONS.contains(&sentence), "docs/operations.md does not say: {sentence}");
    }
}
