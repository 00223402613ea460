//! `attestry tail`: calls as they end, or every event as it is published.
//!
//! Follows a ledger that a sidecar writes, over its segments, until it is interrupted or nobody reads any
//! more. Only what is published is printed. What is in the newest segments already is read silently first, so
//! that calls which run at the start are whole when they end.

use super::stdout::{self, LedgerArg};
use crate::query::{CallFold, CallSummary, Columns, Item, Reader, Record, Table, call_json, event_lines};
use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Segments that are read for the beginnings of calls and connections that still run. At the default size
/// they are 256 MiB, which is read in a fraction of a second; of a connection that is older than that, the
/// peer is not known.
const SEGMENTS_BEFORE: usize = 4;

/// Time between two looks at the head file: short for the eye, and a small read each.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What `attestry tail` takes.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    ledger: LedgerArg,
    /// Print each event as it comes, not each call as it ends
    #[arg(long, conflicts_with = "output")]
    events: bool,
    /// What to print of a call
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned columns.
    Table,
    /// One object on each line, as of `attestry calls`.
    Jsonl,
}

/// Follows the ledger.
pub fn run(args: &TailArgs) -> ExitCode {
    stdout::run(|out| {
        let mut reader = Reader::open_newest(&args.ledger.dir(), SEGMENTS_BEFORE)?;
        let mut printer = Printer::new(args);
        for item in &mut reader {
            if let Item::Record(record) = item? {
                printer.learn(&record);
            }
        }
        eprintln!("following {}", args.ledger.dir().display());
        loop {
            reader.refresh()?;
            for item in &mut reader {
                match item? {
                    Item::Record(record) => printer.print(&record, out)?,
                    Item::Damaged(damaged) => stdout::warn(&damaged),
                }
            }
            printer.flush(out)?;
            out.flush()?;
            thread::sleep(POLL_INTERVAL);
        }
    })
}

/// What is printed of each entry.
enum Printer {
    Events,
    Calls(CallFold, Table<CallSummary>),
    Lines(CallFold),
}

impl Printer {
    fn new(args: &TailArgs) -> Self {
        match (args.events, args.output) {
            (true, _) => Self::Events,
            (false, Output::Table) => Self::Calls(CallFold::new(), Table::for_following(Columns::Narrow)),
            (false, Output::Jsonl) => Self::Lines(CallFold::new()),
        }
    }

    fn learn(&mut self, record: &Record) {
        if let Self::Calls(fold, _) | Self::Lines(fold) = self {
            closed(fold, record);
        }
    }

    fn print(&mut self, record: &Record, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Events => event_lines(record).iter().try_for_each(|line| writeln!(out, "{line}")),
            Self::Calls(fold, table) => {
                closed(fold, record).into_iter().try_for_each(|call| table.push(call, out))
            }
            Self::Lines(fold) => {
                closed(fold, record).iter().try_for_each(|call| writeln!(out, "{}", call_json(call)))
            }
        }
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Self::Calls(_, table) = self { table.flush(out) } else { Ok(()) }
    }
}

/// The calls that the entry ends.
fn closed(fold: &mut CallFold, record: &Record) -> Vec<CallSummary> {
    fold.push(record);
    // Late frames are of no use here: a line that is printed stays as it is.
    fold.take_finished();
    fold.take_closed()
}
