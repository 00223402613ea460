//! `attestry calls`: the calls that a ledger holds, in the order in which they began.
//!
//! Reads beside a running sidecar, up to what is published.

use super::listing::{Listing, Output};
use super::stdout::{self, LedgerArg};
use crate::clock::{Clock as _, SystemClock};
use crate::query::{self, CallPrefix, Filter, FilterError, MethodPattern, StatusChoice, call_json};
use clap::Args;
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
    /// Only these methods: a part of the path, or with * a pattern of all of it, such as "/pkg.Service/*"; of HTTP
    /// also "GET /path*"
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only these statuses, by name, number or state, separated by commas, such as UNAVAILABLE,13,abandoned
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<StatusChoice>,
    /// Only calls of clients whose address begins so, or whose verified identity does, such as spiffe://example.org/
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only calls whose id begins so
    #[arg(long, value_name = "ID")]
    call: Option<CallPrefix>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Lists the calls.
pub fn run(args: CallsArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        let mut listing = Listing::new(args.output, call_json, "no calls");
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

/// A time on the command line.
pub(super) fn time(text: &str) -> Result<u64, FilterError> {
    query::parse_time(text, SystemClock.unix_nanos())
}
