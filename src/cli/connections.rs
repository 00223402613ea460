//! `attestry connections`: every connection that a ledger holds, in the order in which they began.
//!
//! What was read of a connection is in its calls; with `--unread` one finds those of which not all was, and why.

use super::calls::time;
use super::listing::{Listing, Output};
use super::stdout::{self, LedgerArg};
use crate::query::{self, ConnectionFilter, ProtocolChoice, TrafficChoice, connection_json};
use clap::Args;
use std::process::ExitCode;

/// What `attestry connections` takes.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    ledger: LedgerArg,
    /// Only connections that began at this time or later: RFC 3339, or how long ago, such as 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Only connections that began before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Only of clients whose address begins so, or whose verified identity does, such as spiffe://example.org/
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only those in which one of these was found, separated by commas: http2, http1, opaque, tls_passthrough, none
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    protocol: Vec<ProtocolChoice>,
    /// Only those to the workload, or from it: inbound, outbound
    #[arg(long, value_name = "DIRECTION")]
    direction: Option<TrafficChoice>,
    /// Only those of which not all was read: opaque, unopened TLS, unreadable
    #[arg(long)]
    unread: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Lists the connections.
pub fn run(args: ConnectionsArgs) -> ExitCode {
    stdout::run(|out| {
        let dir = args.ledger.dir();
        let mut listing = Listing::new(args.output, connection_json, "no connections");
        query::list_connections(&dir, &args.filter(), &mut stdout::warn, &mut |connection| {
            listing.print(connection, out).map_err(anyhow::Error::from)
        })?;
        Ok(listing.finish(out)?)
    })
}

impl ConnectionsArgs {
    fn filter(self) -> ConnectionFilter {
        ConnectionFilter {
            since_unix_nanos: self.since,
            until_unix_nanos: self.until,
            peer: self.peer,
            protocols: self.protocol,
            traffic: self.direction,
            unread: self.unread,
        }
    }
}
