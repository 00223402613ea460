//! Calls, connections and timelines as JSON. The names and their order are stable; docs/operations.md lists them.
//!
//! Invariants: 64-bit ids are strings of hexadecimal digits, since JSON's numbers are exact to 53 bits; a
//! value that is not known is `null`; bytes that are no UTF-8 are base64 under a name of their own; and
//! nothing in it can steer a terminal.

use super::calls::CallSummary;
use super::connections::{Connection, ConnectionSummary, FirstBytes};
use super::outcome::{code_name, side_name};
use super::text::{hex, millis, rfc3339_nanos, safe_json};
use super::timeline::{Moment, Step};
use super::words::{
    connection_state_name, interception_name, peer_name, traffic_name, verified_client, wire_protocol_name,
};
use crate::generated::v1::{self, Direction, EventType, Level, Protocol};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A call, on one line.
pub fn call_json(call: &CallSummary) -> String {
    let (reset, connection) = (call.reset, &*call.connection);
    let tls = connection.tls[0].as_ref().map(|tls| {
        let (version, name, alpn) = (&tls.version, &tls.server_name, &tls.alpn);
        json!({ "version": text_or_null(version), "server_name": text_or_null(name), "alpn": text_or_null(alpn) })
    });
    safe_json(object([
        ("call_id", call.call.to_string().into()),
        ("time", rfc3339_nanos(call.started_unix_nanos).into()),
        ("direction", traffic_name(connection.traffic).into()),
        ("peer", text_or_null(&connection.client_address)),
        ("upstream", text_or_null(&connection.upstream)),
        ("connection", format!("{:016x}", call.connection_id).into()),
        ("stream", call.stream.into()),
        ("protocol", protocol_name(call.protocol).into()),
        ("method", text_or_null(&call.method)),
        ("authority", text_or_null(&call.authority)),
        ("status", call.status.map(|status| status.to_string()).into()),
        ("status_code", call.status.map(super::Status::code).into()),
        ("status_message", call.status_message.as_str().into()),
        ("request_messages", call.messages[0].into()),
        ("response_messages", call.messages[1].into()),
        ("request_bytes", call.bytes[0].into()),
        ("response_bytes", call.bytes[1].into()),
        ("duration_ms", call.duration_nanos.map(millis).into()),
        ("state", call.state.as_str().into()),
        ("reset_code", reset.map(|reset| code_name(reset.code)).into()),
        ("reset_side", reset.map(|reset| side_name(reset.side)).into()),
        ("level", level_name(call.level).into()),
        ("first_index", call.first_index.into()),
        ("last_index", call.last_index.into()),
        ("http_method", text_or_null(&call.http_method)),
        ("verified_peer", text_or_null(&call.verified_peer)),
        ("interception", interception_name(connection.interception).into()),
        ("original_destination", text_or_null(&connection.original_destination)),
        ("tls", tls.into()),
    ]))
}

/// A connection, on one line.
pub fn connection_json(connection: &ConnectionSummary) -> String {
    let end = connection.end.as_ref();
    let bytes = |way: usize| connection.bytes.map(|bytes| bytes[way]).into();
    let first = |way: usize| connection.first_bytes[way].as_ref().map(first_bytes_json).into();
    let mut members = vec![
        ("connection", format!("{:016x}", connection.connection).into()),
        ("time", rfc3339_nanos(connection.started_unix_nanos).into()),
    ];
    members.extend(facts(&connection.facts));
    members.extend([
        ("unread", connection.unread().into()),
        ("first_bytes_to_server", first(0)),
        ("first_bytes_to_client", first(1)),
        ("bytes_to_server", bytes(0)),
        ("bytes_to_client", bytes(1)),
        ("calls", connection.calls.into()),
        ("duration_ms", connection.duration_nanos.map(millis).into()),
        ("state", connection_state_name(connection.state).into()),
        ("end_reason", end.map(|(reason, _)| reason.as_str()).into()),
        ("end_side", end.map(|(_, side)| side_name(*side)).into()),
        ("first_index", connection.first_index.into()),
        ("last_index", connection.last_index.into()),
    ]);
    safe_json(object(members))
}

/// How a connection came, where it went, and what was found in it.
pub fn facts_json(connection: &Connection) -> String {
    safe_json(object(facts(connection)))
}

fn facts(connection: &Connection) -> [(&'static str, Value); 12] {
    let found = connection.found.iter();
    let found: Vec<Value> = found
        .map(|found| json!({ "protocol": wire_protocol_name(found.protocol), "reason": found.reason }))
        .collect();
    let tls = |side: usize| connection.tls[side].as_ref().map(tls_json).into();
    [
        ("direction", traffic_name(connection.traffic).into()),
        ("interception", interception_name(connection.interception).into()),
        ("peer", text_or_null(&connection.client_address)),
        ("verified_peer", text_or_null(&verified_client(connection))),
        ("listener", text_or_null(&connection.listener_address)),
        ("original_destination", text_or_null(&connection.original_destination)),
        ("upstream", text_or_null(&connection.upstream)),
        ("upstream_address", text_or_null(&connection.upstream_address)),
        ("local_reason", text_or_null(&connection.local_reason)),
        ("protocols", found.into()),
        ("tls_client", tls(0)),
        ("tls_server", tls(1)),
    ]
}

fn tls_json(tls: &v1::Tls) -> Value {
    json!({
        "terminated": tls.terminated,
        "version": text_or_null(&tls.version),
        "cipher_suite": text_or_null(&tls.cipher_suite),
        "server_name": text_or_null(&tls.server_name),
        "alpn": text_or_null(&tls.alpn),
        "alpn_offered": tls.alpn_offered,
        "ja4": text_or_null(&tls.ja4),
        "verified_peer": tls.verified_peer.as_ref().map(peer_json),
        "failure": text_or_null(&tls.failure),
    })
}

fn peer_json(peer: &v1::VerifiedPeer) -> Value {
    json!({
        "name": peer_name(peer),
        "spiffe_id": text_or_null(&peer.spiffe_id),
        "subject_alternative_names": peer.subject_alternative_names,
        "subject": text_or_null(&peer.subject),
        "certificate_sha256": hex(&peer.certificate_sha256),
        "root_subject": text_or_null(&peer.root_subject),
        "root_key_sha256": text_or_null(&hex(&peer.root_key_sha256)),
        "not_after_unix_seconds": peer.not_after_unix_seconds,
    })
}

fn first_bytes_json(first: &FirstBytes) -> Value {
    json!({ "length": first.length, "sha256": hex(&first.sha256) })
}

/// A moment of a timeline, on one line. `started_unix_nanos` is when the call began.
pub fn moment_json(moment: &Moment, started_unix_nanos: u64) -> String {
    safe_json(match moment {
        Moment::Step(step) => step_json(step, started_unix_nanos),
        Moment::Missing(first, end) => object([
            ("type", "MISSING".into()),
            ("first_sequence", (*first).into()),
            ("end_sequence", (*end).into()),
        ]),
        Moment::Gap(gap) => object([
            ("type", "GAP".into()),
            ("reason", gap.reason.as_str().into()),
            ("from", rfc3339_nanos(gap.from_unix_nanos).into()),
            ("to", rfc3339_nanos(gap.to_unix_nanos).into()),
            ("forwarded_submissions", gap.forwarded_submissions.into()),
            ("forwarded_bytes", gap.forwarded_bytes.into()),
        ]),
        Moment::Damaged(damaged) => {
            object([("type", "DAMAGED".into()), ("reason", damaged.to_string().into())])
        }
    })
}

/// The name of a protocol.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http => "http",
        Protocol::GrpcWeb => "grpc_web",
        Protocol::Unspecified => "unknown",
    }
}

/// The name of a level, as the configuration spells it.
pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::RequestResponse => "RequestResponse",
        Level::Request => "Request",
        Level::Metadata => "Metadata",
        Level::None => "None",
        Level::Unspecified => "unknown",
    }
}

fn step_json(step: &Step, started_unix_nanos: u64) -> String {
    let event = &step.event;
    let mut members = vec![
        ("index", step.index.into()),
        ("sequence", step.sequence.into()),
        ("time", rfc3339_nanos(step.captured_unix_nanos).into()),
        ("offset_ms", millis(step.captured_unix_nanos.saturating_sub(started_unix_nanos)).into()),
        ("direction", direction_name(step.direction).into()),
        ("type", event.r#type().as_str_name().into()),
    ];
    if let Some(header) = &event.header {
        let fields = step.fields.as_ref().map(|fields| fields.iter().map(field_json).collect::<Vec<Value>>());
        members.push(("metadata", fields.into()));
        members.push(("malformed", text_or_null(&header.malformed)));
    }
    if let Some(segment) = &event.message {
        members.extend(segment_members(step, segment));
    }
    if matches!(event.r#type(), EventType::Reset | EventType::Cancel) {
        members.push(("code", event.code.into()));
        members.push(("code_name", code_name(event.code).into()));
        members.push(("side", side_name(event.side()).into()));
    }
    if !event.note.is_empty() {
        members.push(("note", event.note.as_str().into()));
    }
    if event.promised_stream != 0 {
        members.push(("promised_stream", event.promised_stream.into()));
    }
    object(members)
}

fn segment_members(step: &Step, segment: &v1::MessageSegment) -> [(&'static str, Value); 8] {
    [
        ("message", segment.message.into()),
        ("prefix", hex(&segment.prefix).into()),
        ("offset", segment.offset.into()),
        ("length", segment.length.into()),
        ("end", segment.end.into()),
        ("frames", segment.frames.into()),
        ("sha256", text_or_null(&hex(&segment.sha256))),
        ("data", step.data.as_ref().map(|data| STANDARD.encode(data)).into()),
    ]
}

fn field_json(field: &v1::Field) -> Value {
    let mut members = serde_json::Map::new();
    let mut text = |name: &str, bytes: &[u8]| {
        let (name, value) = match std::str::from_utf8(bytes) {
            Ok(text) => (name.to_owned(), text.to_owned()),
            Err(_) => (format!("{name}_base64"), STANDARD.encode(bytes)),
        };
        members.insert(name, value.into());
    };
    text("name", &field.name);
    if field.keyed_digest.is_empty() {
        text("value", &field.value);
    } else {
        text("secret_digest", hex(&field.keyed_digest).as_bytes());
    }
    if field.never_indexed {
        members.insert("never_indexed".into(), true.into());
    }
    Value::Object(members)
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::ClientToServer => "client_to_server",
        Direction::ServerToClient => "server_to_client",
        Direction::Unspecified => "unknown",
    }
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// An object whose members stay in their order.
fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> String {
    let mut out = String::from("{");
    for (name, value) in members {
        let comma = if out.len() > 1 { "," } else { "" };
        let _ = write!(out, "{comma}\"{name}\":{value}");
    }
    out.push('}');
    out
}
