//! What commands that print a ledger share: the folder that they read, their standard output, and how they
//! end.
//!
//! Invariants: a reader of the output that goes away, such as `head`, ends the command quietly; everything
//! else that goes wrong is one message on standard error and exit code 1.

use crate::query::Damaged;
use clap::Args;
use std::env;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The variable that names the ledger's folder where `--ledger` does not: the one that `attestry run` takes.
const LEDGER_VARIABLE: &str = "ATTESTRY_LEDGER_DIR";

/// The ledger that a command reads.
#[derive(Debug, Args)]
pub(super) struct LedgerArg {
    /// The ledger's folder [default: $ATTESTRY_LEDGER_DIR, or "ledger"]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
}

impl LedgerArg {
    /// Its folder.
    pub(super) fn dir(&self) -> PathBuf {
        let variable = || env::var_os(LEDGER_VARIABLE).map(PathBuf::from);
        self.ledger.clone().or_else(variable).unwrap_or_else(|| PathBuf::from("ledger"))
    }
}

/// Runs a command that prints to standard output.
pub(super) fn run(
    command: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> anyhow::Result<()>,
) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    // What was printed before a fault is printed all the same.
    let ended = command(&mut out);
    let flushed = out.flush();
    match ended.and(flushed.map_err(anyhow::Error::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attestry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells of a place that was skipped.
pub(super) fn warn(damaged: &Damaged) {
    eprintln!("attestry: {damaged}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
