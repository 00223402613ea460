//! Events in a few words each: what a timeline says of one, and every entry of the ledger as lines for
//! following it.
//!
//! All text is safe for a terminal. The long forms (metadata, bytes) are `render`'s.

use super::outcome::{code_name, side_name};
use super::payload;
use super::reader::Record;
use super::text::{duration, hex, printable, printable_bytes, rfc3339_millis, size_in_words};
use super::timeline::{Step, steps};
use super::words::{interception_name, tls_in_words, traffic_name, wire_protocol_name};
use crate::entry::Body;
use crate::generated::v1::connection_opened::Interception;
use crate::generated::v1::{self, Direction, EventType, Protocol, connection_event};
use crate::grpc;

/// Digits of a call's id, or of a connection's, in front of a line.
const ID_DIGITS: usize = 12;

/// An entry in lines: one for each event of a call or a connection, else one.
pub fn event_lines(record: &Record) -> Vec<String> {
    let line = |unix_nanos: u64, subject: &str, arrow: &str, what: String| {
        format!("{}  {subject:ID_DIGITS$}  {arrow} {what}", rfc3339_millis(unix_nanos))
    };
    match &record.body {
        Body::CallEvents(events) => {
            let call = hex(&events.call[..events.call.len().min(ID_DIGITS / 2)]);
            let lines = steps(record, events).into_iter();
            lines
                .map(|step| line(step.captured_unix_nanos, &call, arrow(step.direction), in_words(&step)))
                .collect()
        }
        Body::ConnectionEvents(events) => {
            let connection = connection_name(events.connection);
            let line = |event| {
                line(
                    events.captured_unix_nanos,
                    &connection,
                    arrow(events.direction()),
                    connection_event(event),
                )
            };
            events.events.iter().map(line).collect()
        }
        body => {
            let (connection, unix_nanos) = match body {
                Body::ConnectionOpened(opened) => {
                    (connection_name(opened.connection), opened.captured_unix_nanos)
                }
                Body::ConnectionClosed(closed) => {
                    (connection_name(closed.connection), closed.captured_unix_nanos)
                }
                _ => ("ledger".to_owned(), record.committed_unix_nanos),
            };
            vec![line(unix_nanos, &connection, "·", other(body))]
        }
    }
}

/// An arrow for a direction: from the client to the right.
pub(super) fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::ClientToServer => "→",
        Direction::ServerToClient => "←",
        Direction::Unspecified => "·",
    }
}

/// An event of a call: its type, and what is most worth knowing of it.
pub(super) fn in_words(step: &Step) -> String {
    let event = &step.event;
    let field = |name| {
        let value = payload::value(step.fields.as_deref().unwrap_or_default(), name);
        value.map(printable_bytes).unwrap_or_default()
    };
    let detail = match event.r#type() {
        EventType::ClientHeader if step.protocol == Protocol::Http => {
            format!("{} {}", field(":method"), field(":path")).trim_start().to_owned()
        }
        EventType::ClientHeader => field(":path"),
        EventType::ServerInformational | EventType::ServerHeader => {
            format!("{} {}", field(":status"), field(":reason"))
        }
        EventType::ServerTrailer => trailer(&field("grpc-status"), step),
        EventType::ClientMessage | EventType::ServerMessage => {
            event.message.as_ref().map_or_else(String::new, segment)
        }
        EventType::Cancel | EventType::Reset => {
            format!("{} by {}", code_name(event.code), side_name(event.side()))
        }
        EventType::LocalAnswer | EventType::Abandoned => printable(&event.note),
        EventType::PushPromise => format!("of stream {}: {}", event.promised_stream, field(":path")),
        _ => String::new(),
    };
    format!("{} {detail}", event.r#type().as_str_name()).trim_end().to_owned()
}

fn trailer(status: &str, step: &Step) -> String {
    let name = status.parse().ok().and_then(grpc::status_name).unwrap_or(status);
    let message = payload::value(step.fields.as_deref().unwrap_or_default(), "grpc-message");
    let message = message.map(|message| printable(&grpc::decode_grpc_message(message))).unwrap_or_default();
    if message.is_empty() { name.to_owned() } else { format!("{name} {message}") }
}

fn segment(segment: &v1::MessageSegment) -> String {
    let v1::MessageSegment { message, offset, length, end, .. } = segment;
    let what = match (offset, end) {
        (0, true) => format!("{length} bytes"),
        (_, true) => format!("{length} bytes from {offset} on, its last"),
        _ => format!("{length} bytes from {offset} on"),
    };
    format!("{message}: {what}")
}

fn connection_name(connection: u64) -> String {
    let mut name = format!("{connection:016x}");
    name.truncate(ID_DIGITS);
    name
}

fn connection_event(event: &v1::ConnectionEvent) -> String {
    let (reason, kind) = (printable(&event.reason), event.r#type());
    let text = match kind {
        connection_event::Type::Goaway => {
            format!("GOAWAY {}, last stream {}", code_name(event.code), event.last_stream)
        }
        connection_event::Type::StrayFrame => format!("STRAY_FRAME on stream {}: {reason}", event.stream),
        connection_event::Type::Protocol => {
            format!("PROTOCOL {}: {reason}", wire_protocol_name(event.protocol()))
        }
        connection_event::Type::Tls => {
            format!("TLS {}", event.tls.as_ref().map_or_else(String::new, tls_in_words))
        }
        connection_event::Type::FirstBytes => {
            let (length, digest) = (size_in_words(event.payload_length), hex(&event.payload_sha256));
            format!("FIRST_BYTES {length}, sha256 {digest}")
        }
        kind => format!("{} {}: {reason}", kind.as_str_name(), code_name(event.code)),
    };
    format!("{text}{}", times(event.count))
}

/// Of how many like it something is the sum.
fn times(count: u64) -> String {
    if count > 1 { format!(" ({count} times)") } else { String::new() }
}

/// An entry that is of no call.
fn other(body: &Body) -> String {
    match body {
        Body::Opened(opened) => format!("OPENED {}", printable(&opened.origin)),
        Body::Started(started) => format!("STARTED attestry {}", printable(&started.attestry_version)),
        Body::Stopped(stopped) => format!("STOPPED {}", printable(&stopped.reason)),
        Body::ConnectionOpened(opened) => connection_opened(opened),
        Body::ConnectionClosed(closed) => {
            let took = match closed.duration_nanos {
                0 => String::new(),
                nanos => format!(" after {}", duration(nanos)),
            };
            let v1::ConnectionClosed { bytes_to_server: up, bytes_to_client: down, .. } = closed;
            let (side, reason) = (side_name(closed.side()), printable(&closed.reason));
            format!("CONNECTION_CLOSED by {side}{took}: {reason} ({up}/{down} bytes)")
        }
        Body::Gap(gap) => gap_in_words(gap),
        Body::Damage(damage) => {
            let v1::Damage { first_index, end_index, .. } = damage;
            format!("DAMAGE entries [{first_index}, {end_index}): {}", printable(&damage.reason))
        }
        Body::Notice(notice) => {
            let (kind, reason) = (notice.r#type().as_str_name(), printable(&notice.reason));
            let span = match (notice.from_unix_nanos, notice.to_unix_nanos) {
                (from, to) if from == to => String::new(),
                (from, to) => format!(", {} to {}", rfc3339_millis(from), rfc3339_millis(to)),
            };
            format!("NOTICE {kind}: {reason}{}{span}", times(notice.count))
        }
        Body::CallEvents(_) | Body::ConnectionEvents(_) => String::new(),
    }
}

fn connection_opened(opened: &v1::ConnectionOpened) -> String {
    let (client, upstream) = (printable(&opened.client_address), printable(&opened.upstream));
    let traffic = traffic_name(opened.traffic()).map(|way| format!("{way} ")).unwrap_or_default();
    let dialled = match interception_name(opened.interception()) {
        Some(name) if opened.interception() != Interception::Fixed => {
            format!(" ({name}, dialled {})", printable(&opened.original_destination))
        }
        _ => String::new(),
    };
    let reason = printable(&opened.local_reason);
    let text = format!("CONNECTION_OPENED {traffic}{client} to {upstream}{dialled}");
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

/// What passed unrecorded, or was refused.
pub(super) fn gap_in_words(gap: &v1::Gap) -> String {
    let (from, to) = (rfc3339_millis(gap.from_unix_nanos), rfc3339_millis(gap.to_unix_nanos));
    let what = if gap.forwarded {
        format!(
            "{} submissions ({} bytes) were forwarded unrecorded",
            gap.forwarded_submissions, gap.forwarded_bytes
        )
    } else {
        format!("{} submissions were refused", gap.refused_submissions)
    };
    format!("GAP {from} to {to}: {what}: {}", printable(&gap.reason))
}
