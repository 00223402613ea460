//! How a call ended, in the terms of its protocol: the status that its client takes from what came.
//!
//! gRPC: the `grpc-status` of the trailers or of a trailers-only response, else the HTTP status mapped; a
//! reset by its code (PROTOCOL-HTTP2.md, http-grpc-status-mapping.md). gRPC-Web: the same, with the trailers at the end
//! of its body (PROTOCOL-WEB.md). HTTP: the `:status`. A call that nobody ended has none.

use super::payload::value;
use crate::generated::v1::{self, EventType, Protocol, Side};
use crate::grpc;
use crate::http2::code;
use bytes::Bytes;
use std::fmt;

/// The longest trailers of gRPC-Web that are read, in bytes: clients bound theirs by 8 to 64 KiB.
const WEB_TRAILERS_BYTES_MAX: usize = 64 * 1024;

/// In the flag octet of a gRPC-Web prefix: what follows are the trailers.
const WEB_TRAILERS_FLAG: u8 = 0x80;

/// In the same octet: it is compressed.
const COMPRESSED_FLAG: u8 = 0x01;

/// The gRPC status of what a proxy answers itself.
const UNAVAILABLE: u32 = 14;
const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;

/// A call's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A gRPC status code; codes above 16 exist on the wire and have no name.
    Grpc(u32),
    /// An HTTP status.
    Http(u16),
}

impl Status {
    /// The number.
    pub fn code(self) -> u32 {
        match self {
            Self::Grpc(code) => code,
            Self::Http(status) => status.into(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(code) => match grpc::status_name(*code) {
                Some(name) => out.pad(name),
                None => out.pad(&code.to_string()),
            },
            Self::Http(status) => out.pad(&status.to_string()),
        }
    }
}

/// What the server's header blocks have said of the outcome so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Response {
    http_status: Option<u16>,
    grpc_status: Option<u32>,
    grpc_message: Option<String>,
    /// gRPC-Web's trailers came, and what they say is not in the ledger.
    web_trailers_unreadable: bool,
}

/// The trailers in the body of a gRPC-Web response: the message whose flag octet has the bit 0x80.
#[derive(Debug, Default)]
pub(super) struct WebTrailers {
    /// The message whose flag was looked at last.
    newest: Option<u64>,
    /// The one that holds the trailers.
    message: Option<u64>,
    block: Vec<u8>,
    unreadable: bool,
}

impl WebTrailers {
    /// Takes a segment of the response; `data` is `None` where its bytes are not at hand. Tells whether it is of the
    /// trailers.
    pub(super) fn take(&mut self, segment: &v1::MessageSegment, data: Option<&[u8]>) -> bool {
        if self.newest != Some(segment.message) {
            let Some(flag) = segment.prefix.first() else { return self.message == Some(segment.message) };
            self.newest = Some(segment.message);
            if flag & WEB_TRAILERS_FLAG == 0 {
                return false;
            }
            self.message = Some(segment.message);
            self.block.clear();
            self.unreadable = flag & COMPRESSED_FLAG != 0;
        }
        if self.message != Some(segment.message) {
            return false;
        }
        match data {
            Some(data)
                if segment.offset == self.block.len() as u64
                    && self.block.len() + data.len() <= WEB_TRAILERS_BYTES_MAX =>
            {
                self.block.extend_from_slice(data);
            }
            _ => self.unreadable = true,
        }
        true
    }

    /// `name: value` on each line; `None` where that is not known.
    fn fields(&self) -> Option<Vec<v1::Field>> {
        if self.unreadable {
            return None;
        }
        let field = |line: &[u8]| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
            Some(v1::Field { name, value, ..Default::default() })
        };
        Some(self.block.split(|&byte| byte == b'\n').filter_map(field).collect())
    }
}

/// The end of a call: status, where it has one, and the words that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: Option<Status>,
    pub(super) message: String,
}

impl Response {
    /// Takes notice of a response's header block or trailers.
    pub(super) fn read(&mut self, fields: &[v1::Field]) {
        if let Some(status) = value(fields, ":status").and_then(number) {
            self.http_status = u16::try_from(status).ok();
        }
        if let Some(status) = value(fields, "grpc-status") {
            // "Unknown" is what a client makes of a status that is no number.
            self.grpc_status = Some(number(status).unwrap_or(UNKNOWN));
        }
        if let Some(message) = value(fields, "grpc-message") {
            self.grpc_message = Some(grpc::decode_grpc_message(message));
        }
    }

    /// Takes notice of the trailers in a body, once all of them have come.
    pub(super) fn read_web_trailers(&mut self, trailers: &WebTrailers) {
        match trailers.fields() {
            Some(fields) => self.read(&fields),
            None => self.web_trailers_unreadable = true,
        }
    }

    /// The outcome that `event` decides for a call of `protocol`, if it is one that does.
    pub(super) fn outcome(&self, protocol: Protocol, event: &v1::Event) -> Option<Outcome> {
        let http = || self.http_status.map(Status::Http);
        match event.r#type() {
            EventType::ServerTrailer | EventType::ServerHalfClose => Some(match protocol {
                Protocol::Http => Outcome { status: http(), message: String::new() },
                _ => self.grpc_end(),
            }),
            EventType::Cancel | EventType::Reset => {
                let status = match (protocol, event.r#type()) {
                    (Protocol::Http, _) => http(),
                    (_, EventType::Cancel) => Some(Status::Grpc(CANCELLED)),
                    _ => Some(Status::Grpc(grpc::status_from_reset(event.code))),
                };
                Some(Outcome { status, message: reset_message(event) })
            }
            EventType::LocalAnswer => {
                let status =
                    if protocol == Protocol::Http { http() } else { Some(Status::Grpc(UNAVAILABLE)) };
                Some(Outcome { status, message: event.note.clone() })
            }
            _ => None,
        }
    }

    fn grpc_end(&self) -> Outcome {
        let message = self.grpc_message.clone().unwrap_or_default();
        if let Some(status) = self.grpc_status {
            return Outcome { status: Some(Status::Grpc(status)), message };
        }
        if self.web_trailers_unreadable {
            let message = "its trailers are compressed, or were not stored".to_owned();
            return Outcome { status: None, message };
        }
        match self.http_status {
            Some(http) => Outcome {
                status: Some(Status::Grpc(grpc::status_from_http(http))),
                message: format!("no grpc-status; HTTP status {http}"),
            },
            None => Outcome { status: Some(Status::Grpc(UNKNOWN)), message: "no grpc-status".to_owned() },
        }
    }
}

/// The name of a reset code, or its number.
pub(super) fn code_name(code: u32) -> String {
    code::name(code).map_or_else(|| code.to_string(), str::to_owned)
}

/// The word for a side.
pub(super) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
        Side::Attestry => "attestry",
        Side::Unspecified => "unknown side",
    }
}

fn reset_message(event: &v1::Event) -> String {
    format!("RST_STREAM {} by {}", code_name(event.code), side_name(event.side()))
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
