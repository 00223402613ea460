//! What stands in the rows of tables: calls, and connections.
//!
//! Invariant: every cell is safe for a terminal.

use super::calls::{CallId, CallSummary};
use super::connections::ConnectionSummary;
use super::json::{level_name, protocol_name};
use super::outcome::{code_name, side_name};
use super::table::{Columns, Row, outside};
use super::text::{duration, rfc3339_millis, size};
use super::words::{
    connection_state_name, interception_name, protocols, server_name, traffic_name, verified_client,
};

/// Digits of a call's id that are printed at least.
const ID_DIGITS_MIN: usize = 12;

/// Digits of a whole id.
const ID_DIGITS: usize = 32;

const NARROW_CALL: &[&str] =
    &["TIME", "DIR", "PEER", "METHOD", "STATUS", "MSGS(UP/DOWN)", "BYTES(UP/DOWN)", "DURATION", "CALL"];
const WIDE_CALL: &[&str] = &[
    "TIME",
    "DIR",
    "PEER",
    "VERIFIED",
    "DIALLED",
    "UPSTREAM",
    "PROTOCOL",
    "AUTHORITY",
    "METHOD",
    "STATUS",
    "MSGS(UP/DOWN)",
    "BYTES(UP/DOWN)",
    "DURATION",
    "STATE",
    "RESET",
    "LEVEL",
    "ENTRIES",
    "CALL",
    "MESSAGE",
];

impl Row for CallSummary {
    const USUAL_WIDTHS: &'static [(&'static str, usize)] =
        &[("TIME", 24), ("DIR", 8), ("PEER", 21), ("METHOD", 40), ("STATUS", 18)];

    fn titles(columns: Columns) -> &'static [&'static str] {
        match columns {
            Columns::Narrow => NARROW_CALL,
            Columns::Wide => WIDE_CALL,
        }
    }

    fn cells(page: &[Self], columns: Columns) -> Vec<Vec<String>> {
        let digits = if columns == Columns::Wide { ID_DIGITS } else { id_digits(page) };
        let row = |call| {
            Self::titles(columns).iter().map(|title| call_cell(title, call, digits, columns)).collect()
        };
        page.iter().map(row).collect()
    }
}

fn call_cell(title: &str, call: &CallSummary, digits: usize, columns: Columns) -> String {
    let outside = |text: &str| outside(text, columns);
    let connection = &call.connection;
    match title {
        "TIME" => rfc3339_millis(call.started_unix_nanos),
        "DIR" => known(traffic_name(connection.traffic)),
        "PEER" => outside(&connection.client_address),
        "VERIFIED" => outside(&call.verified_peer),
        "DIALLED" => outside(&connection.original_destination),
        "UPSTREAM" => outside(&connection.upstream),
        "PROTOCOL" => protocol_name(call.protocol).to_owned(),
        "AUTHORITY" => outside(&call.authority),
        "METHOD" => outside(&call.method_in_words()),
        "STATUS" => {
            call.status.map_or_else(|| format!("({})", call.state.as_str()), |status| status.to_string())
        }
        "MSGS(UP/DOWN)" => pair(call.messages.map(|count| count.to_string())),
        "BYTES(UP/DOWN)" => pair(call.bytes.map(size)),
        "DURATION" => call.duration_nanos.map_or_else(|| "-".to_owned(), duration),
        "STATE" => call.state.as_str().to_owned(),
        "RESET" => call.reset.map_or_else(
            || "-".to_owned(),
            |reset| format!("{} by {}", code_name(reset.code), side_name(reset.side)),
        ),
        "LEVEL" => level_name(call.level).to_owned(),
        "ENTRIES" => format!("{}-{}", call.first_index, call.last_index),
        "MESSAGE" => outside(&call.status_message),
        _ => call.call.to_string()[..digits].to_owned(),
    }
}

/// Digits that tell these calls apart.
fn id_digits(calls: &[CallSummary]) -> usize {
    let mut ids: Vec<CallId> = calls.iter().map(|call| call.call).collect();
    ids.sort_unstable();
    ids.dedup();
    let common = |pair: &[CallId]| {
        let (one, other) = (pair[0].to_string(), pair[1].to_string());
        one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
    };
    ids.windows(2).map(|pair| common(pair) + 1).fold(ID_DIGITS_MIN, usize::max)
}

const NARROW_CONNECTION: &[&str] = &[
    "TIME",
    "DIR",
    "PROTOCOL",
    "PEER",
    "TO",
    "SNI",
    "CALLS",
    "BYTES(UP/DOWN)",
    "DURATION",
    "CONNECTION",
    "END",
];
const WIDE_CONNECTION: &[&str] = &[
    "TIME",
    "DIR",
    "CAME",
    "PROTOCOL",
    "PEER",
    "VERIFIED",
    "DIALLED",
    "TO",
    "SNI",
    "CALLS",
    "BYTES(UP/DOWN)",
    "DURATION",
    "STATE",
    "ENTRIES",
    "CONNECTION",
    "END",
    "FOUND",
    "UNREAD",
];

impl Row for ConnectionSummary {
    const USUAL_WIDTHS: &'static [(&'static str, usize)] = &[];

    fn titles(columns: Columns) -> &'static [&'static str] {
        match columns {
            Columns::Narrow => NARROW_CONNECTION,
            Columns::Wide => WIDE_CONNECTION,
        }
    }

    fn cells(page: &[Self], columns: Columns) -> Vec<Vec<String>> {
        let row = |connection| {
            Self::titles(columns).iter().map(|title| connection_cell(title, connection, columns)).collect()
        };
        page.iter().map(row).collect()
    }
}

fn connection_cell(title: &str, connection: &ConnectionSummary, columns: Columns) -> String {
    let outside = |text: &str| outside(text, columns);
    let facts = &connection.facts;
    match title {
        "TIME" => rfc3339_millis(connection.started_unix_nanos),
        "DIR" => known(traffic_name(facts.traffic)),
        "CAME" => known(interception_name(facts.interception)),
        "PROTOCOL" => outside(&protocols(facts)),
        "PEER" => outside(&facts.client_address),
        "VERIFIED" => outside(&verified_client(facts)),
        "DIALLED" => outside(&facts.original_destination),
        "TO" => outside(&facts.upstream),
        "SNI" => outside(server_name(facts)),
        "CALLS" => connection.calls.to_string(),
        "BYTES(UP/DOWN)" => connection.bytes.map_or_else(|| "-".to_owned(), |bytes| pair(bytes.map(size))),
        "DURATION" => connection.duration_nanos.map_or_else(|| "-".to_owned(), duration),
        "STATE" => connection_state_name(connection.state).to_owned(),
        "ENTRIES" => format!("{}-{}", connection.first_index, connection.last_index),
        "END" => connection.end.as_ref().map_or_else(
            || format!("({})", connection_state_name(connection.state)),
            |(reason, side)| format!("{} by {}", outside(reason), side_name(*side)),
        ),
        "FOUND" => outside(facts.found.last().map_or("", |found| &found.reason)),
        "UNREAD" => outside(connection.unread().unwrap_or_default()),
        _ => format!("{:016x}", connection.connection),
    }
}

fn known(word: Option<&str>) -> String {
    word.unwrap_or("-").to_owned()
}

fn pair([up, down]: [String; 2]) -> String {
    format!("{up}/{down}")
}
