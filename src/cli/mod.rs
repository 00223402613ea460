//! The command line: what can be asked of attestry, and with which exit code it answers.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; and from the verifier 3 damaged, 4 cannot tell. Each command is a
//! file here that parses, calls the library and prints; `run` and `demo` are `crate::app`'s.

mod calls;
mod checkpoint;
mod config;
mod connections;
#[cfg(feature = "proxy")]
mod demo;
mod key;
mod listing;
#[cfg(feature = "proxy")]
mod probe;
#[cfg(feature = "proxy")]
mod redirect;
#[cfg(feature = "proxy")]
mod run;
mod show;
mod stdout;
mod tail;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A transparent gRPC sidecar that signs every frame into a tamper-evident ledger before it forwards it.
#[derive(Debug, Parser)]
#[command(name = "attestry", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar: relay every call, its evidence committed first
    #[cfg(feature = "proxy")]
    Run(run::RunArgs),
    /// Ask a running sidecar whether it is ready: for an exec probe
    #[cfg(feature = "proxy")]
    Ready(probe::ReadyArgs),
    /// Take a running sidecar out of service and wait for its connections: for a preStop hook
    #[cfg(feature = "proxy")]
    PreStop(probe::PreStopArgs),
    /// See it work: a sample service, calls through a sidecar, and what the ledger then proves
    #[cfg(feature = "proxy")]
    Demo(demo::DemoArgs),
    /// Make the kernel send this host's connections through the sidecar, or stop it
    #[cfg(feature = "proxy")]
    Redirect(redirect::RedirectArgs),
    /// List the calls that a ledger holds
    Calls(calls::CallsArgs),
    /// List the connections that a ledger holds: what was found in each, and what was not read
    Connections(connections::ConnectionsArgs),
    /// Show one call: its timeline, metadata and messages
    Show(show::ShowArgs),
    /// Follow a ledger: calls as they end, or every event
    Tail(tail::TailArgs),
    /// Recompute a whole ledger: 0 intact, 3 damaged, 4 cannot tell
    Verify(verify::VerifyArgs),
    /// Print the newest signed checkpoint, for `verify --against`
    Checkpoint(checkpoint::CheckpointArgs),
    /// Make a signing key
    Keygen(key::KeygenArgs),
    /// Print the verifier key of a ledger
    Key(key::KeyArgs),
    /// Check a configuration, or print it with its defaults
    Config(config::ConfigArgs),
}

/// Parses the process's arguments and runs what they ask for.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        #[cfg(feature = "proxy")]
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "proxy")]
        Command::Ready(args) => probe::ready(&args),
        #[cfg(feature = "proxy")]
        Command::PreStop(args) => probe::pre_stop(&args),
        #[cfg(feature = "proxy")]
        Command::Demo(args) => demo::run(&args),
        #[cfg(feature = "proxy")]
        Command::Redirect(args) => redirect::run(args),
        Command::Calls(args) => calls::run(args),
        Command::Connections(args) => connections::run(args),
        Command::Show(args) => show::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Keygen(args) => key::keygen(&args),
        Command::Key(args) => key::key(&args),
        Command::Config(args) => config::run(&args),
    }
}
