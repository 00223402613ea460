//! What the matrix and the misbehaving server's clients came to, as the tables of `docs/interop.md`.
//!
//! A cell that this run did not play counts as good where the document is only compared: whoever plays it and finds
//! otherwise fails anyway. Where the document is written, such a cell is shown as not played.

use std::collections::BTreeMap;

use super::cases::{self, Case};
use super::document::{regenerates, table};
use super::matrix::{Cell, Matrix, Pair};
use super::misbehaving;
use super::negative::Outcomes;
use super::stacks::Stack;
use super::ways::Way;

/// The suite's cases in its order, and how ours differs from what it says, if it does.
const SUITE: [(&str, &str); 23] = [
    ("empty_unary", ""),
    (
        "cacheable_unary",
        "not played: it wants a cache in between, and the GET that it is made with is gone from every stack but \
         grpc-java, whose own server refuses it",
    ),
    ("large_unary", ""),
    ("client_compressed_unary", COMPRESSION),
    ("server_compressed_unary", COMPRESSION),
    ("client_streaming", ""),
    ("client_compressed_streaming", COMPRESSION),
    ("server_streaming", ""),
    ("server_compressed_streaming", COMPRESSION),
    ("ping_pong", ""),
    ("empty_stream", ""),
    ("custom_metadata", "unary and full duplex"),
    ("status_code_and_message", "unary and full duplex"),
    ("special_status_message", ""),
    ("unimplemented_method", "unary and full duplex"),
    ("unimplemented_service", ""),
    ("cancel_after_begin", "cancelled once the server has the call, and the server must hear of it"),
    ("cancel_after_first_response", "and the server must hear of it"),
    (
        "timeout_on_sleeping_server",
        "300 ms instead of 1 ms, so that the call is sent, and the server must hear of it",
    ),
    ("rpc_soak", "100 calls of large_unary on one connection"),
    ("channel_soak", "20 connections with a call of large_unary each"),
    ("very_large_request", "64 MiB each way"),
    (
        "pick_first_unary, orca_per_rpc, orca_oob, max_concurrent_streams_connection_scaling",
        "not played: they test a client's balancing among servers, and there is one server behind a sidecar",
    ),
];

const COMPRESSION: &str =
    "no stack tells a server whether a message came compressed, so its probe for that is not played: note 1";

const NOT_PLAYED: &str = "not played";

/// The parts on stacks, cases and pairs.
pub(super) fn pairs(matrix: &Matrix) -> String {
    let mut text = stacks();
    text.push_str("### The suite's cases, over every pair of stacks\n\n");
    text.push_str(&suite_table(matrix));
    text.push_str("### Our own cases\n\n");
    text.push_str(&own_table(matrix));
    for way in Way::RELAYED {
        text.extend(["### By pair: ", way.title(), "\n\n", &pair_table(matrix, way)]);
    }
    text
}

/// Why a pair cannot go over a way, if so.
pub(super) fn reason_not_to_play(way: Way, (client, server): Pair) -> Option<&'static str> {
    let has_tonic = client == Stack::Tonic || server == Stack::Tonic;
    (has_tonic && way.credentials().is_some()).then_some("note 2")
}

fn stacks() -> String {
    let rows = Stack::ALL.map(|stack| {
        let (library, http2) = stack.library();
        vec![library.to_owned(), stack.version(), http2.to_owned()]
    });
    table(&["stack", "version", "HTTP/2"], rows)
}

fn suite_table(matrix: &Matrix) -> String {
    let ours = all_cases();
    let rows = SUITE.map(|(name, note)| {
        let of_suite: Vec<&Case> = ours.iter().filter(|case| case.suite == Some(name)).collect();
        row_of_cases(matrix, name, &of_suite, note)
    });
    table(&case_head("case of the suite"), rows)
}

fn own_table(matrix: &Matrix) -> String {
    let ours = all_cases();
    let own = ours.iter().filter(|case| case.suite.is_none());
    table(&case_head("case"), own.map(|case| row_of_cases(matrix, case.name, &[case], "")))
}

fn all_cases() -> Vec<Case> {
    let mut ours = cases::all();
    ours.extend([cases::goaway_with_running_stream(), cases::unreachable()]);
    ours
}

fn case_head(first: &'static str) -> Vec<&'static str> {
    let ways = Way::RELAYED.iter().map(|way| way.title());
    [first].into_iter().chain(ways).chain(["note"]).collect()
}

/// How many pairs got the same results direct and relayed, in all of some cases.
fn row_of_cases(matrix: &Matrix, title: &str, cases: &[&Case], note: &str) -> Vec<String> {
    let mut row = vec![title.to_owned()];
    for way in Way::RELAYED {
        let (mut same, mut all) = (0, 0);
        for pair in every_pair() {
            let mut cases = cases.iter().filter(|case| case.is_playable(pair)).peekable();
            let cell = matrix.get(&(way, pair.0, pair.1));
            let is_out = reason_not_to_play(way, pair).is_some() || cases.peek().is_none();
            if is_out || (cell.is_none() && regenerates()) {
                continue;
            }
            all += 1;
            same += usize::from(cell.is_none_or(|cell| cases.all(|case| cell.is_same(case.name))));
        }
        row.push(if all == 0 { "–".to_owned() } else { format!("same in {same} of {all}") });
    }
    row.push(note.to_owned());
    row
}

fn every_pair() -> impl Iterator<Item = Pair> {
    Stack::ALL.into_iter().flat_map(|client| Stack::ALL.map(|server| (client, server)))
}

fn pair_table(matrix: &Matrix, way: Way) -> String {
    let servers = Stack::ALL.map(|server| format!("{server:?} server"));
    let head: Vec<&str> = [""].into_iter().chain(servers.iter().map(String::as_str)).collect();
    let rows = Stack::ALL.map(|client| {
        let cells = Stack::ALL.map(|server| match reason_not_to_play(way, (client, server)) {
            Some(reason) => reason.to_owned(),
            None => told(matrix.get(&(way, client, server)), (client, server)),
        });
        [format!("{client:?} client")].into_iter().chain(cells).collect()
    });
    table(&head, rows)
}

fn told(cell: Option<&Cell>, pair: Pair) -> String {
    let all = all_cases().iter().filter(|case| case.is_playable(pair)).count();
    match cell {
        Some(cell) => {
            let same = cell.cases.values().filter(|faults| faults.is_empty()).count();
            let ledger = if cell.faults.is_empty() { "" } else { ", and more is wrong" };
            format!("{same} of {all}{ledger}")
        }
        None if regenerates() => NOT_PLAYED.to_owned(),
        None => format!("{all} of {all}"),
    }
}

/// The part on the misbehaving server.
pub(super) fn misbehaving(outcomes: &Outcomes) -> String {
    let clients = Stack::ALL.map(|stack| format!("{stack:?} client"));
    let head: Vec<&str> = ["case"].into_iter().chain(clients.iter().map(String::as_str)).collect();
    let mut names: Vec<&str> = misbehaving::cases().iter().filter_map(|case| case.suite).collect();
    names.dedup();
    let rows = names.into_iter().map(|name| {
        let cells = Stack::ALL.map(|stack| match outcomes.get(&(name.to_owned(), stack)) {
            Some(outcome) if outcome.faults.is_empty() => format!("{}: same", told_codes(&outcome.codes)),
            Some(_) => "**not the same**".to_owned(),
            None => NOT_PLAYED.to_owned(),
        });
        [name.to_owned()].into_iter().chain(cells).collect()
    });
    table(&head, rows)
}

fn told_codes(codes: &[i64]) -> String {
    let names: BTreeMap<i64, &str> = [
        (0, "OK"),
        (1, "CANCELLED"),
        (2, "UNKNOWN"),
        (4, "DEADLINE_EXCEEDED"),
        (12, "UNIMPLEMENTED"),
        (13, "INTERNAL"),
        (14, "UNAVAILABLE"),
    ]
    .into();
    let mut told: Vec<String> = codes
        .iter()
        .map(|code| names.get(code).map_or_else(|| code.to_string(), |&name| name.to_owned()))
        .collect();
    told.dedup();
    told.join(", ")
}
