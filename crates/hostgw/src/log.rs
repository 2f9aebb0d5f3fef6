//! Logs go to stderr, so that stdout carries one document.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How much is logged, and how.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// What is logged: error, warn, info, debug, or a filter of tracing's.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "HOSTGW_LOG")]
    log_level: String,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Starts logging. A filter that is none is told, and `info` is taken.
    pub(crate) fn start(&self) {
        let (filter, wrong) = match EnvFilter::try_new(&self.log_level) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new("info"), Some(error)),
        };
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        // Fails only where logging was started before.
        let _ = match self.log_format {
            Format::Text => builder.try_init(),
            Format::Json => builder.json().try_init(),
        };
        if let Some(error) = wrong {
            tracing::warn!(level = self.log_level, %error, "--log-level is no filter; taking info");
        }
    }
}
