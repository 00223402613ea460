//! `attestry run`: reads the configuration, starts logging, and runs the sidecar.

use crate::config;
use crate::{app, telemetry};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `run` is told.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
}

/// Runs until SIGTERM; 2 where the configuration has faults, 1 where the start or the end fails.
pub(super) fn run(args: &RunArgs) -> ExitCode {
    let config = match config::load(Some(&args.config), config::process_env()) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    let result = telemetry::init_logging(config.log.format, &config.log.filter)
        .map_err(anyhow::Error::from)
        .and_then(|()| app::run(&config));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attestry: {error:#}");
            ExitCode::FAILURE
        }
    }
}
