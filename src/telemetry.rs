//! Log lines. Only `main` installs the subscriber.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends log lines to stderr, filtered and formatted as configured. Does nothing when a subscriber is installed already.
pub fn install(config: &Config) {
    // The configuration has been validated with this very filter.
    let filter = EnvFilter::new(&config.log);
    // Colours are for terminals; a file or a collector wants the text alone.
    let has_colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(has_colours).with_writer(std::io::stderr);
    let installed = match config.log_format {
        LogFormat::Pretty => builder.compact().try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber is installed already");
    }
}
