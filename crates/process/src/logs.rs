//! Structured logs, for people or for machines.

use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Flags for logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines look
    #[arg(long, env = "STRAND_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
    /// Which log lines there are: error, warn, info, debug, trace, or directives such as info,kube=debug
    #[arg(long, env = "STRAND_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

impl LogArgs {
    /// Starts logging to standard error. Call once, first thing.
    ///
    /// # Errors
    /// A sentence, if the level cannot be read.
    pub fn init(&self) -> Result<(), String> {
        let filter = EnvFilter::try_new(&self.log_level).map_err(|e| {
            format!(
                "--log-level {:?} cannot be read ({e}); write info, debug or info,kube=debug",
                self.log_level
            )
        })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let done = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        done.map_err(|e| format!("logging cannot be started: {e}"))
    }
}
