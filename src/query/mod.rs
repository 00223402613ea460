//! Reading a ledger: its entries in order, the calls and connections that they tell of, one call's timeline, and
//! their printed forms.
//!
//! Works on a copy and beside a running writer: only reads, no lock, and on a live ledger nothing beyond the
//! published head (docs/ledger-format.md section 7). Damaged places are skipped and reported, never trusted
//! and never a panic. Invariants: memory is bounded by one frame and by what is open at a time, and no byte
//! that came over the wire reaches a terminal raw.
//!
//! Not here: whether what is read is authentic (`crate::ledger`'s checker says that), and the arguments of
//! commands (`crate::cli`).

mod calls;
mod connections;
mod events;
mod filter;
mod json;
mod order;
mod outcome;
mod payload;
mod reader;
mod render;
mod rows;
mod table;
mod text;
mod timeline;
mod words;

pub use calls::{CallFold, CallId, CallSummary, Reset, State};
pub use connections::{Connection, ConnectionFold, ConnectionState, ConnectionSummary, FirstBytes, Found};
pub use events::event_lines;
pub use filter::{
    CallPrefix, ConnectionFilter, Filter, FilterError, MethodPattern, ProtocolChoice, StatusChoice,
    TrafficChoice, parse_time,
};
pub use json::{call_json, connection_json, facts_json, moment_json};
pub use order::InOrder;
pub use outcome::Status;
pub use reader::{Damaged, Item, ReadError, Reader, Record};
pub use render::{Detail, TimelinePrinter, heading};
pub use table::{Columns, Row, Table};
pub use text::{printable, printable_bytes, rfc3339_millis};
pub use timeline::{Message, MessageFold, Moment, Step, Timeline};

use std::path::Path;

/// Hands the calls of the ledger in `dir` that `filter` takes to `each`, in the order in which they began,
/// while the ledger is read.
pub fn list<E: From<ReadError>>(
    dir: &Path,
    filter: &Filter,
    warn: &mut dyn FnMut(&Damaged),
    each: &mut dyn FnMut(CallSummary) -> Result<(), E>,
) -> Result<(), E> {
    let (mut fold, mut in_order) = (CallFold::new(), InOrder::default());
    for item in Reader::open(dir)? {
        match item? {
            Item::Record(record) => fold.push(&record),
            Item::Damaged(damaged) => warn(&damaged),
        }
        for call in fold.take_finished().into_iter().filter(|call| filter.takes(call)) {
            in_order.push(call.first_index, call);
        }
        while let Some(call) = in_order.pop(fold.oldest_unfinished()) {
            each(call)?;
        }
    }
    for call in fold.finish().into_iter().filter(|call| filter.takes(call)) {
        in_order.push(call.first_index, call);
    }
    while let Some(call) = in_order.pop(None) {
        each(call)?;
    }
    Ok(())
}

/// The same with connections.
pub fn list_connections<E: From<ReadError>>(
    dir: &Path,
    filter: &ConnectionFilter,
    warn: &mut dyn FnMut(&Damaged),
    each: &mut dyn FnMut(ConnectionSummary) -> Result<(), E>,
) -> Result<(), E> {
    let (mut fold, mut in_order) = (ConnectionFold::default(), InOrder::default());
    for item in Reader::open(dir)? {
        match item? {
            Item::Record(record) => fold.push(&record),
            Item::Damaged(damaged) => warn(&damaged),
        }
        for connection in fold.take_finished().into_iter().filter(|connection| filter.takes(connection)) {
            in_order.push(connection.first_index, connection);
        }
        while let Some(connection) = in_order.pop(fold.oldest_unfinished()) {
            each(connection)?;
        }
    }
    for connection in fold.finish().into_iter().filter(|connection| filter.takes(connection)) {
        in_order.push(connection.first_index, connection);
    }
    while let Some(connection) = in_order.pop(None) {
        each(connection)?;
    }
    Ok(())
}

/// The one call of the ledger in `dir` whose id begins with `prefix`. Damaged places on the way go to `warn`.
pub fn find(
    dir: &Path,
    prefix: &CallPrefix,
    warn: &mut dyn FnMut(&Damaged),
) -> Result<CallSummary, FindError> {
    let mut fold = CallFold::only(prefix.clone());
    let mut found = Vec::new();
    for item in Reader::open(dir)? {
        match item? {
            Item::Record(record) => fold.push(&record),
            Item::Damaged(damaged) => warn(&damaged),
        }
        found.extend(fold.take_finished());
        if found.len() > CANDIDATES_MAX {
            break;
        }
    }
    found.extend(fold.finish());
    match found.len() {
        0 => Err(FindError::Unknown(prefix.to_string())),
        1 => Ok(found.remove(0)),
        _ => {
            let candidates: Vec<String> = found.iter().take(CANDIDATES_MAX).map(candidate).collect();
            Err(FindError::Ambiguous { prefix: prefix.to_string(), candidates: candidates.join("\n") })
        }
    }
}

/// Calls that are named where a prefix fits several.
const CANDIDATES_MAX: usize = 10;

/// Why there is not the one call that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No call of that id.
    #[error("no call {0} in this ledger: `attestry calls` lists the calls that it holds")]
    Unknown(String),
    /// Several.
    #[error("{prefix} is the beginning of several calls, give more digits:\n{candidates}")]
    Ambiguous {
        /// As asked.
        prefix: String,
        /// Some of them, one per line.
        candidates: String,
    },
}

fn candidate(call: &CallSummary) -> String {
    format!(
        "  {}  {}  {}",
        call.call,
        rfc3339_millis(call.started_unix_nanos),
        printable(&call.method_in_words())
    )
}
