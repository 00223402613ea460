//! `attestry checkpoint`: the newest published checkpoint of a ledger, to be kept elsewhere and given to `verify --against` later.

use super::stdout::{self, LedgerArg};
use crate::ledger::head::Head;
use anyhow::Context as _;
use std::io::Write as _;
use std::process::ExitCode;

/// What `attestry checkpoint` takes.
#[derive(Debug, clap::Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    ledger: LedgerArg,
}

/// Prints it: a signed note (C2SP signed-note), durable before it was published.
pub fn run(args: &CheckpointArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        let head = Head::read(&dir)?
            .with_context(|| format!("no head file in {}: is it a ledger?", dir.display()))?;
        anyhow::ensure!(
            !head.checkpoint.is_empty(),
            "the head file in {} holds no checkpoint",
            dir.display()
        );
        Ok(out.write_all(head.checkpoint.as_bytes())?)
    })
}
