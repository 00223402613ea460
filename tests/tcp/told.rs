//! What the ledger of `attestry run` tells of each case: its connection and its calls, read by the commands that a user has.
//!
//! `attestry verify` must find the ledger intact; `attestry connections`, `calls` and `show` must tell of every connection what spoke on it, how it ended, and how many bytes
//! went each way, and of every call its request, its status, and its content each way with its digest.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::driver::{End, Received};
use crate::duet::{Between, Played};
use crate::support::sidecar::{self, Sidecar};

impl Between for Sidecar {
    fn start(upstream: SocketAddr) -> Self {
        Self::start(upstream)
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn finish(mut self, played: &[Played]) -> Vec<String> {
        self.stop();
        self.verify();
        let connections = connections(&self);
        if connections.len() != played.len() {
            return vec![format!("{} cases made {} connections", played.len(), connections.len())];
        }
        let mut calls: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for call in self.calls() {
            calls.entry(text(&call["connection"])).or_default().push(call);
        }
        let told = connections.iter().zip(played).flat_map(|(connection, played)| {
            let mut calls = calls.remove(&text(&connection["connection"])).unwrap_or_default();
            calls.sort_by_key(|call| call["stream"].as_u64());
            let mut wrong = wrong_in(connection, played);
            wrong.extend(wrong_in_calls(&self, &calls, played));
            wrong.into_iter().map(|wrong| format!("{}: the ledger: {wrong}", played.case.name))
        });
        told.collect()
    }
}

/// What `attestry connections -o jsonl` lists, in the order in which they began.
pub(crate) fn connections(sidecar: &Sidecar) -> Vec<Value> {
    let ledger = sidecar.ledger_dir.to_str().unwrap();
    let output = sidecar::attestry(&["connections", "--ledger", ledger, "-o", "jsonl"]);
    assert!(output.status.success(), "attestry connections: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut connections: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    connections.sort_by_key(|connection| connection["first_index"].as_u64());
    connections
}

/// What was found to be spoken on it: "http1: a request line".
pub(crate) fn found(connection: &Value) -> Vec<String> {
    let found = connection["protocols"].as_array().unwrap().iter();
    found.map(|found| format!("{}: {}", text(&found["protocol"]), text(&found["reason"]))).collect()
}

/// Who ended it, and how: "client: closed by the client".
pub(crate) fn end(connection: &Value) -> String {
    format!("{}: {}", text(&connection["end_side"]), text(&connection["end_reason"]))
}

fn wrong_in(connection: &Value, played: &Played) -> Vec<String> {
    let mut wrong = Vec::new();
    let (found, end) = (found(connection), end(connection));
    if found != played.case.found {
        wrong.push(format!("found {found:?}, not {:?}", played.case.found));
    }
    if end != played.case.end || connection["state"] != "closed" || !connection["duration_ms"].is_number() {
        wrong.push(format!(
            "ended \"{end}\" ({}, {} ms), not \"{}\"",
            connection["state"], connection["duration_ms"], played.case.end
        ));
    }
    for (way, received) in [("bytes_to_server", &played.server), ("bytes_to_client", &played.client)] {
        let told = connection[way].as_u64().unwrap_or_default();
        if !fits(told, received) {
            wrong.push(format!("{way} {told}, of which {} were received", received.bytes.len()));
        }
    }
    wrong
}

/// One who has reset its connection may have been sent more than it has read.
fn fits(told: u64, received: &Received) -> bool {
    let count = received.bytes.len() as u64;
    told == count || (received.end == Some(End::AbortedHere) && told > count)
}

fn wrong_in_calls(sidecar: &Sidecar, calls: &[Value], played: &Played) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines: Vec<String> = calls.iter().map(line).collect();
    let expected: Vec<&str> = played.case.calls.iter().map(|call| call.line).collect();
    if lines != expected {
        return vec![format!("calls {lines:?}, not {expected:?}")];
    }
    for (told, call) in calls.iter().zip(played.case.calls) {
        let shown = show(sidecar, &text(&told["call_id"]));
        let contents = [
            ("request", "request_bytes", "client_to_server", call.asked),
            ("response", "response_bytes", "server_to_client", call.answered),
        ];
        for (name, bytes, direction, expected) in contents {
            let content = content(&shown, direction);
            if content.as_deref() != Ok(expected) {
                let content = content.map(|content| content.escape_ascii().to_string());
                wrong.push(format!("{}: the {name}'s content is {content:?}", call.line));
            }
            // The trailers of gRPC-Web are no content, though they stand in it; and its prefixes are counted apart.
            if told["protocol"] == "http" && told[bytes].as_u64() != Some(expected.len() as u64) {
                wrong.push(format!("{}: {bytes} is {}", call.line, told[bytes]));
            }
        }
        let in_parentheses =
            call.line.split_once(" (").map_or("", |(_, message)| message.trim_end_matches(')'));
        let note = if call.note.is_empty() { in_parentheses } else { call.note };
        if notes(&shown) != note {
            wrong.push(format!("{}: its notes are {:?}", call.line, notes(&shown)));
        }
        if !told["duration_ms"].is_number() {
            wrong.push(format!("{}: it has no duration", call.line));
        }
    }
    wrong
}

/// A call in a line, as cases give it.
pub(crate) fn line(call: &Value) -> String {
    let status = call["status_code"].as_u64().map_or_else(|| "-".into(), |code| code.to_string());
    let (protocol, method, target) =
        (text(&call["protocol"]), text(&call["http_method"]), text(&call["method"]));
    let mut line = format!("{method} {target} {status} {}", text(&call["state"]));
    if protocol != "http" {
        line = format!("{protocol} {line}");
    }
    match text(&call["status_message"]) {
        message if message.is_empty() => line,
        message => format!("{line} ({message})"),
    }
}

/// What `attestry show -o json` says of a call.
pub(crate) fn show(sidecar: &Sidecar, call: &str) -> Value {
    let ledger = sidecar.ledger_dir.to_str().unwrap();
    let output = sidecar::attestry(&["show", call, "--ledger", ledger, "-o", "json"]);
    assert!(output.status.success(), "attestry show: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why it was given up.
fn notes(shown: &Value) -> String {
    let notes = shown["events"].as_array().into_iter().flatten().map(|event| text(&event["note"]));
    notes.filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The bytes of all messages of one direction with their prefixes, or what is wrong in them.
fn content(shown: &Value, direction: &str) -> Result<Vec<u8>, String> {
    let (mut all, mut message) = (Vec::new(), Vec::new());
    for event in shown["events"].as_array().ok_or("there are no events")? {
        if event["direction"] != direction || !event["message"].is_number() {
            continue;
        }
        if event["offset"] == 0 {
            message.clear();
        }
        all.extend(unhex(&text(&event["prefix"])));
        let data = STANDARD.decode(text(&event["data"])).map_err(|error| error.to_string())?;
        message.extend(&data);
        all.extend(data);
        if text(&event["sha256"]) != hex(&Sha256::digest(&message)) {
            return Err(format!("the digest of {} bytes is wrong", message.len()));
        }
    }
    Ok(all)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
