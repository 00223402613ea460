//! The process's log: `tracing` events as text or JSON lines on standard error.
//!
//! Invariants: standard output stays free for what a command prints, and the log is installed once. The totals are in
//! `counters`; the ledger, not the log, is the evidence.

use crate::config::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?} is not understood ({reason}); write one such as \"info\" or \"info,attestry::ledger=debug\""
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What its parser said.
        reason: String,
    },
    /// Another log is in place already.
    #[error("the log is already started ({0}); start it once, before anything else")]
    Started(String),
}

/// Starts the log for the whole process. `filter` is a `tracing` filter such as `info,attestry::ledger=debug`.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|e| LoggingError::Filter { filter: filter.to_owned(), reason: e.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(parsed);
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|e| LoggingError::Started(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = init_logging(LogFormat::Text, "info=loudly").unwrap_err().to_string();
        assert!(error.contains("\"info=loudly\""), "{error}");
    }

    #[test]
    fn a_second_start_is_refused() {
        // Another test of this binary may have been first, so only the second answer is certain.
        let _ = init_logging(LogFormat::Json, "error");
        assert!(matches!(init_logging(LogFormat::Json, "error"), Err(LoggingError::Started(_))));
    }
}
