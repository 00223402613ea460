//! `attestry calls`: the calls that a ledger holds, in the order in which they began.
//!
//! Reads beside a running sidecar, up to what is published. Calls are printed while the ledger is read, so
//! the memory does not grow with it.

use super::stdout::{self, LedgerArg};
use crate::clock::{Clock as _, SystemClock};
use crate::query::{
    self, CallPrefix, CallSummary, Columns, Filter, FilterError, MethodPattern, StatusChoice, Table,
    call_json,
};
use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::process::ExitCode;

/// What `attestry calls` takes.
#[derive(Debug, Args)]
pub struct CallsArgs {
    #[command(flatten)]
    ledger: LedgerArg,
    /// Only calls that began at this time or later: RFC 3339, or how long ago, such as 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Only calls that began before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Only these methods: a part of the path, or with * a pattern of all of it, such as "/pkg.Service/*"
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only these statuses, by name, number or state, separated by commas, such as UNAVAILABLE,13,abandoned
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<StatusChoice>,
    /// Only calls of clients whose address begins so
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Only calls whose id begins so
    #[arg(long, value_name = "ID")]
    call: Option<CallPrefix>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The forms in which calls are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned columns.
    Table,
    /// More of them, with whole ids.
    Wide,
    /// One array.
    Json,
    /// One object on each line.
    Jsonl,
}

/// Lists the calls.
pub fn run(args: CallsArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        let mut listing = Listing::new(args.output);
        query::list(&dir, &args.filter(), &mut stdout::warn, &mut |call| {
            listing.print(call, out).map_err(anyhow::Error::from)
        })?;
        Ok(listing.finish(out)?)
    })
}

impl CallsArgs {
    fn filter(self) -> Filter {
        Filter {
            since_unix_nanos: self.since,
            until_unix_nanos: self.until,
            method: self.method.as_deref().map(MethodPattern::new),
            statuses: self.status,
            peer: self.peer,
            call: self.call,
        }
    }
}

fn time(text: &str) -> Result<u64, FilterError> {
    query::parse_time(text, SystemClock.unix_nanos())
}

/// Calls that are being printed.
enum Listing {
    Table(Table),
    /// With the number of calls so far.
    Json(u64),
    Jsonl,
}

impl Listing {
    fn new(output: Output) -> Self {
        match output {
            Output::Table => Self::Table(Table::new(Columns::Narrow)),
            Output::Wide => Self::Table(Table::new(Columns::Wide)),
            Output::Json => Self::Json(0),
            Output::Jsonl => Self::Jsonl,
        }
    }

    fn print(&mut self, call: CallSummary, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table(table) => table.push(call, out),
            Self::Json(count) => {
                let before = if *count == 0 { "[" } else { "," };
                *count += 1;
                write!(out, "{before}\n{}", call_json(&call))
            }
            Self::Jsonl => writeln!(out, "{}", call_json(&call)),
        }
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table(table) if table.is_empty() => {
                eprintln!("no calls");
                Ok(())
            }
            Self::Table(table) => table.flush(out),
            Self::Json(0) => writeln!(out, "[]"),
            Self::Json(_) => writeln!(out, "\n]"),
            Self::Jsonl => Ok(()),
        }
    }
}
