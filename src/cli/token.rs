//! `runlane token`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::app::authority;
use crate::config::Config;
use crate::domain::Role;
use crate::domain::clock::Clock;

/// Who gets a token.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom the token names.
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// viewer reads; user starts and controls its own runs; admin does everything.
    #[arg(long, value_name = "viewer|user|admin")]
    role: Role,
    /// The group whose spend limits concern the runs of whoever has the token.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// How long the token is good: a number and s, m, h or d.
    #[arg(long, value_name = "24h", default_value = "24h", value_parser = time_to_live)]
    ttl: Duration,
}

fn time_to_live(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => bail!("give a number and s, m, h or d, such as 24h"),
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds_each)) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => bail!("give a number and s, m, h or d, such as 24h"),
    }
}

/// Prints the token.
///
/// # Errors
/// When the secret is missing, or the token cannot be issued.
pub fn print(config: &Config, clock: Arc<dyn Clock>, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { sub, role, group, ttl } = arguments;
    println!("{}", authority(config, clock)?.issue_in(sub, *role, group.as_deref(), *ttl)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_have_a_unit() {
        assert_eq!(time_to_live("24h").unwrap(), Duration::from_secs(86_400));
        assert_eq!(time_to_live("90s").unwrap(), Duration::from_secs(90));
        for wrong in ["", "24", "h", "-1h", "0s", "1ü", "99999999999999999999d"] {
            assert!(time_to_live(wrong).is_err(), "{wrong}");
        }
    }
}
