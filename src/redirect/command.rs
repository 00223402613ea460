//! One program to run with what it is fed, and how that ended.
//!
//! Invariants: programs are found by PATH and run without a shell; what they said stands in the error. Printed, a command is what
//! one would type, so that a `--dry-run` is a script. Which commands there are is in `host` and `routes`.

use std::fmt;
use std::io::{self, Write as _};
use std::process::{self, Stdio};

/// Most of a program's complaint that is passed on.
const COMPLAINT_BYTES_MAX: usize = 1000;

/// A program with its arguments and its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    program: String,
    arguments: String,
    input: String,
}

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there.
    #[error("{program} is not installed, or not in PATH")]
    Missing {
        /// The program.
        program: String,
    },
    /// It could not be started or spoken to.
    #[error("{program} cannot be run: {source}")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{command}` failed: {complaint}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// What it said.
        complaint: String,
    },
}

impl CommandError {
    /// Whether the program is not there at all.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Command {
    /// Arguments are parted by single spaces; none of ours has one inside.
    pub(super) fn new(program: &str, arguments: &str, input: String) -> Self {
        Self { program: program.to_owned(), arguments: arguments.to_owned(), input }
    }

    /// Runs it to its end; its standard output where it succeeded.
    pub(super) fn run(&self) -> Result<String, CommandError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CommandError::Missing { program: self.program.clone() },
            _ => CommandError::Run { program: self.program.clone(), source },
        };
        let mut child = process::Command::new(&self.program)
            .args(self.arguments.split_whitespace())
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // None of the programs writes before it has read all, so that one after the other cannot block. One that ends without
        // reading says why on its standard error, which tells more than the broken pipe.
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(self.input.as_bytes()));
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            return Err(CommandError::Failed {
                command: self.typed(),
                complaint: complaint(&output.stderr, output.status, &self.input),
            });
        }
        fed.map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn typed(&self) -> String {
        format!("{} {}", self.program, self.arguments)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.input.is_empty() {
            writeln!(f, "{}", self.typed())
        } else {
            writeln!(f, "{} <<'END'\n{}END", self.typed(), self.input)
        }
    }
}

fn complaint(stderr: &[u8], status: process::ExitStatus, input: &str) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(COMPLAINT_BYTES_MAX)]);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return format!("it ended with {status} and said nothing");
    }
    let said = lines.join(" / ");
    table_of(&said, input).map_or(said.clone(), |table| format!("{said} (in table {table})"))
}

/// iptables-restore names the line that failed, and that is often the COMMIT: whose it is tells more.
fn table_of<'a>(said: &str, input: &'a str) -> Option<&'a str> {
    let (_, number) = said.split_once("line ")?;
    let number: usize = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    input.lines().take(number).filter_map(|line| line.strip_prefix('*')).last()
}
