//! `attestry config check` and `attestry config show`: the configuration as `attestry run` would take it.
//!
//! Invariants: both read the file and the process's environment exactly as `run` does; every fault goes to standard
//! error, one per line, and the exit code is then 2. What a fault is stands in `crate::config`.

use crate::config::{self, Config, Faults};
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code of a faulty configuration, the same as for a faulty command line.
const EXIT_FAULTY: u8 = 2;

/// Check the configuration, or show what it comes to.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Report every fault of the file and of the environment at once.
    Check(FileArgs),
    /// Print every value as TOML, with a comment on those that are defaults or come from a variable.
    Show(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
}

/// Runs the command; its output is for people and for `attestry config show > FILE`.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let (file, output): (&Path, fn(&Path, &Config) -> String) = match &args.action {
        Action::Check(file) => (&file.config, |path, _| format!("{}: no faults\n", path.display())),
        Action::Show(file) => (&file.config, |_, config| config.to_annotated_toml()),
    };
    match load(file) {
        Ok(config) => print(&output(file, &config)),
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::from(EXIT_FAULTY)
        }
    }
}

fn load(file: &Path) -> Result<Config, Faults> {
    config::load(Some(file), config::process_env())
}

/// A reader that went away, such as `head`, is no reason to panic; the exit code tells it.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
