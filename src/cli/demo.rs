//! `attestry demo`: shows the main job at work.

use crate::app;
use std::process::ExitCode;

/// What `demo` is told.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave the sidecar and its ledger there until Ctrl-C, to be called by other clients
    #[arg(long)]
    keep: bool,
}

/// Runs it; 1 where something did not go as promised.
pub(super) fn run(args: &DemoArgs) -> ExitCode {
    match app::demo(args.keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attestry demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
