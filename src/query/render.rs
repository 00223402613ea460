//! A call's timeline as text: what `attestry show` prints.
//!
//! Everything from the wire is escaped. Messages are shown whole (length, digest, beginning) or, in
//! hexadecimal, segment by segment as they were recorded, so that nothing but the beginning of a message is
//! ever held.

use super::calls::CallSummary;
use super::events::{arrow, gap_in_words, in_words};
use super::json::level_name;
use super::text::{duration, hex, is_text, printable, printable_bytes, rfc3339_millis, size_in_words};
use super::timeline::{Message, MessageFold, Moment, Step};
use super::words::{interception_name, protocols, tls_in_words, traffic_name};
use crate::generated::v1::connection_opened::Interception;
use crate::generated::v1::{self, Direction, EventType};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::io::{self, Write};

/// Bytes of a message's beginning that are shown where they are no text.
const HEX_PREVIEW_BYTES: usize = 24;

/// Bytes on one line of a dump.
const DUMP_LINE_BYTES: usize = 16;

/// Below an event: behind its time and its arrow.
const INDENT: &str = "               ";

/// How messages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line and the first bytes.
    Beginning,
    /// All bytes, in hexadecimal.
    Hex,
}

/// What stands above a timeline: the call's summary, a line for each fact.
pub fn heading(call: &CallSummary) -> String {
    let known = |text: &str| if text.is_empty() { "(unknown)".to_owned() } else { printable(text) };
    let status =
        call.status.map_or_else(|| format!("({})", call.state.as_str()), |status| status.to_string());
    let message = printable(&call.status_message);
    let took = call.duration_nanos.map_or_else(String::new, |nanos| format!(", took {}", duration(nanos)));
    let way = |n: usize| format!("{} ({})", call.messages[n], size_in_words(call.bytes[n]));
    let peer = match printable(&call.verified_peer) {
        peer if peer.is_empty() => String::new(),
        peer => format!(", verified {peer}"),
    };
    let mut lines = vec![
        ("call", call.call.to_string()),
        ("method", known(&call.method_in_words())),
        ("time", format!("{}{took}", rfc3339_millis(call.started_unix_nanos))),
        ("from", format!("{}{peer}", known(&call.connection.client_address))),
        ("to", format!("{}, authority {}", known(&call.connection.upstream), known(&call.authority))),
        ("status", format!("{status} {message}").trim_end().to_owned()),
        ("state", call.state.as_str().to_owned()),
        ("messages", format!("{} from the client, {} from the server", way(0), way(1))),
        ("stream", format!("{} of connection {:016x}", call.stream, call.connection_id)),
        ("entries", format!("{} to {}, level {}", call.first_index, call.last_index, level_name(call.level))),
    ];
    lines.extend(connection_lines(call));
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:10}{value}\n")).collect();
    lines.concat()
}

/// How the call's connection came, and what was found in it; nothing where the ledger does not say.
fn connection_lines(call: &CallSummary) -> Vec<(&'static str, String)> {
    let connection = &*call.connection;
    let mut lines = Vec::new();
    let words = [traffic_name(connection.traffic), interception_name(connection.interception)];
    let mut came = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if !matches!(connection.interception, Interception::Unspecified | Interception::Fixed) {
        came = format!("{came}, dialled {}", printable(&connection.original_destination));
    }
    if !came.is_empty() {
        lines.push(("came", came));
    }
    if let Some(found) = connection.found.last() {
        lines.push(("protocol", format!("{}: {}", protocols(connection), printable(&found.reason))));
    }
    lines.extend(connection.tls.iter().flatten().map(|tls| ("tls", tls_in_words(tls))));
    lines
}

/// Prints a timeline, moment by moment.
#[derive(Debug)]
pub struct TimelinePrinter {
    started_unix_nanos: u64,
    detail: Detail,
    messages: MessageFold,
}

impl TimelinePrinter {
    /// For a call that began at `started_unix_nanos`.
    pub fn new(started_unix_nanos: u64, detail: Detail) -> Self {
        Self { started_unix_nanos, detail, messages: MessageFold::default() }
    }

    /// Prints the next moment.
    pub fn print(&mut self, moment: &Moment, out: &mut dyn Write) -> io::Result<()> {
        match moment {
            Moment::Step(step) => self.step(step, out),
            Moment::Missing(first, end) => {
                writeln!(
                    out,
                    "{INDENT}(missing: events {first} to {} of this call are not in the ledger)",
                    end - 1
                )
            }
            Moment::Gap(gap) => writeln!(out, "{INDENT}({})", gap_in_words(gap)),
            Moment::Damaged(damaged) => writeln!(out, "{INDENT}({damaged})"),
        }
    }

    /// Prints what the end of the timeline leaves open.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        [Direction::ClientToServer, Direction::ServerToClient]
            .into_iter()
            .try_for_each(|way| self.cut_off(way, out))
    }

    fn step(&mut self, step: &Step, out: &mut dyn Write) -> io::Result<()> {
        let finished = self.messages.push(step);
        if step.event.message.is_some() && self.detail == Detail::Beginning {
            return finished.iter().try_for_each(|message| self.message(message, out));
        }
        if matches!(
            step.event.r#type(),
            EventType::ClientHalfClose | EventType::ServerHalfClose | EventType::ServerTrailer
        ) {
            self.cut_off(step.direction, out)?;
        }
        self.line(step.captured_unix_nanos, step.direction, &in_words(step), out)?;
        if let Some(header) = &step.event.header {
            print_header(header, step.fields.as_deref(), out)?;
        }
        if let Some(segment) = &step.event.message {
            print_segment(segment, step.data.as_deref(), out)?;
        }
        finished.iter().try_for_each(|message| print_digest(message, out))
    }

    fn cut_off(&mut self, direction: Direction, out: &mut dyn Write) -> io::Result<()> {
        self.messages.take_open(direction).map_or(Ok(()), |message| self.message(&message, out))
    }

    fn message(&self, message: &Message, out: &mut dyn Write) -> io::Result<()> {
        let kind =
            if message.direction == Direction::ServerToClient { "SERVER_MESSAGE" } else { "CLIENT_MESSAGE" };
        let what = format!("{kind} {}: {}", message.number, message_in_words(message));
        self.line(message.captured_unix_nanos.1, message.direction, &what, out)?;
        if !message.preview.is_empty() {
            let dots = if (message.preview.len() as u64) < message.length { " …" } else { "" };
            writeln!(out, "{INDENT}{}{dots}", preview(&message.preview))?;
        }
        print_digest(message, out)
    }

    fn line(&self, unix_nanos: u64, direction: Direction, what: &str, out: &mut dyn Write) -> io::Result<()> {
        let offset = format!("+{}", duration(unix_nanos.saturating_sub(self.started_unix_nanos)));
        writeln!(out, "{offset:>10}  {}  {what}", arrow(direction))
    }
}

fn message_in_words(message: &Message) -> String {
    let flag = match message.flag() {
        None | Some(0) => String::new(),
        Some(1) => ", compressed".to_owned(),
        Some(0x80) => ", trailers of gRPC-Web".to_owned(),
        Some(flag) => format!(", flag {flag:#04x}"),
    };
    let (first, last) = message.captured_unix_nanos;
    let segments = match message.segments {
        1 => String::new(),
        count => format!(", in {count} segments over {}", duration(last.saturating_sub(first))),
    };
    let end = match (message.complete, message.announced_length()) {
        (true, _) => String::new(),
        (false, Some(announced)) => format!(", incomplete: {announced} were announced"),
        (false, None) => ", incomplete".to_owned(),
    };
    format!("{} bytes{flag}{segments}{end}", message.length)
}

fn print_digest(message: &Message, out: &mut dyn Write) -> io::Result<()> {
    let digest = hex(&message.sha256);
    match message.digest_holds {
        Some(true) => writeln!(out, "{INDENT}sha256 {digest}"),
        Some(false) => {
            writeln!(out, "{INDENT}sha256 {digest} DOES NOT MATCH the bytes: run `attestry verify`")
        }
        None if digest.is_empty() => writeln!(out, "{INDENT}(bytes not stored at this capture level)"),
        None => writeln!(out, "{INDENT}sha256 {digest} (not all of its bytes can be read)"),
    }
}

fn print_header(
    header: &v1::HeaderBlock,
    fields: Option<&[v1::Field]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    match fields {
        Some(fields) => fields.iter().try_for_each(|field| writeln!(out, "{INDENT}{}", field_line(field)))?,
        None => writeln!(
            out,
            "{INDENT}(its {} bytes of fields cannot be read: run `attestry verify`)",
            header.beside_length
        )?,
    }
    if header.malformed.is_empty() {
        return Ok(());
    }
    writeln!(out, "{INDENT}(breaks HTTP's rules: {})", printable(&header.malformed))
}

/// A metadata field. Values of `-bin` names are base64 on the wire already, and shown as they came.
fn field_line(field: &v1::Field) -> String {
    let name = printable_bytes(&field.name);
    let value = if !field.keyed_digest.is_empty() {
        format!("(secret, digest {})", hex(&field.keyed_digest))
    } else if is_text(&field.value) {
        printable_bytes(&field.value)
    } else {
        format!("(base64) {}", STANDARD.encode(&field.value))
    };
    let note = if field.never_indexed { "  (never indexed)" } else { "" };
    format!("{name}: {value}{note}")
}

fn print_segment(segment: &v1::MessageSegment, data: Option<&[u8]>, out: &mut dyn Write) -> io::Result<()> {
    if !segment.prefix.is_empty() {
        writeln!(out, "{INDENT}prefix {}", hex(&segment.prefix))?;
    }
    let lines =
        data.unwrap_or_default().chunks(DUMP_LINE_BYTES).zip((segment.offset..).step_by(DUMP_LINE_BYTES));
    for (bytes, offset) in lines {
        writeln!(out, "{INDENT}{offset:08x}  {}", dump(bytes, DUMP_LINE_BYTES))?;
    }
    Ok(())
}

fn preview(bytes: &[u8]) -> String {
    // The last character may have been cut in the middle.
    let whole = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
    if whole + 3 >= bytes.len() && is_text(&bytes[..whole]) {
        return format!("\"{}\"", printable_bytes(&bytes[..whole]));
    }
    dump(&bytes[..bytes.len().min(HEX_PREVIEW_BYTES)], 0)
}

/// Bytes in hexadecimal and as ASCII, the first part as wide as `width` bytes.
fn dump(bytes: &[u8], width: usize) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let ascii: String =
        bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' }).collect();
    let columns = (3 * width).saturating_sub(1);
    format!("{:columns$}  |{ascii}|", digits.join(" "))
}
