//! Frames as bytes (RFC 9113 section 4.1): what a script sends, and what a trace is taken apart into.
//!
//! A frame is built from any parts and parsed without a judgement: nothing here knows what HTTP/2 allows.
//! Not here: header blocks (`hpack.rs`), sockets (`driver.rs`).
#![allow(dead_code)] // Each test binary that takes this module in uses its own part of it.

use std::fmt;

/// What every client sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_BYTES: usize = 9;

/// Frame types (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags (RFC 9113 section 6). `ACK` shares its bit with `END_STREAM`.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const END_STREAM: u8 = 0x01;
    pub(crate) const ACK: u8 = 0x01;
    pub(crate) const END_HEADERS: u8 = 0x04;
    pub(crate) const PADDED: u8 = 0x08;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Error codes that scripts name (RFC 9113 section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// SETTINGS parameters (RFC 9113 section 6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// One frame as it stood on the wire.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The 9 bytes of the frame header, the reserved bit with them.
    pub(crate) head: [u8; HEAD_BYTES],
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn kind(&self) -> u8 {
        self.head[3]
    }

    pub(crate) fn flags(&self) -> u8 {
        self.head[4]
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    /// The stream without the reserved bit.
    pub(crate) fn stream(&self) -> u32 {
        word(&self.head[5..9]) & 0x7fff_ffff
    }

    /// The last stream and the code, if this is a GOAWAY frame.
    pub(crate) fn goaway(&self) -> Option<(u32, u32)> {
        let whole = self.kind() == kind::GOAWAY && self.payload.len() >= 8;
        whole.then(|| (word(&self.payload[..4]) & 0x7fff_ffff, word(&self.payload[4..8])))
    }

    /// The fragment of a header block in HEADERS, PUSH_PROMISE or CONTINUATION, without padding and prefixes.
    /// `None` for other frames and where the padding does not fit.
    pub(crate) fn fragment(&self) -> Option<&[u8]> {
        let mut body = self.payload.as_slice();
        if self.kind() == kind::CONTINUATION {
            return Some(body);
        }
        if self.kind() != kind::HEADERS && self.kind() != kind::PUSH_PROMISE {
            return None;
        }
        if self.has(flag::PADDED) {
            let (&pad, rest) = body.split_first()?;
            body = rest.get(..rest.len().checked_sub(usize::from(pad))?)?;
        }
        let prefix = match self.kind() {
            kind::PUSH_PROMISE => 4,
            _ if self.has(flag::PRIORITY) => 5,
            _ => 0,
        };
        body.get(prefix..)
    }

    /// The frame's first bytes as one; `None` where `bytes` does not hold the whole of it yet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let head: [u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let length = length_of(head);
        Some(Self { head, payload: bytes.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec() })
    }

    pub(crate) fn wire_len(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        match NAMES.get(usize::from(self.kind())) {
            Some(name) => write!(out, "{name}")?,
            None => write!(out, "type {:#04x}", self.kind())?,
        }
        let stream = word(&self.head[5..9]);
        write!(out, " flags={:#04x} stream={stream} {} bytes", self.flags(), self.payload.len())?;
        let shown = &self.payload[..self.payload.len().min(48)];
        let more = if shown.len() < self.payload.len() { "..." } else { "" };
        write!(out, " [{}{more}]", shown.escape_ascii())
    }
}

/// A frame of any type with any payload. Panics where the payload is longer than 24 bits can say.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 1 << 24, "a frame's length has 24 bits");
    let mut bytes = u32::try_from(payload.len()).expect("less than 2^24").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

/// HEADERS that holds the whole block.
pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, stream, block)
}

pub(crate) fn settings(params: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = params
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    frame(kind::SETTINGS, flag::NONE, 0, &payload)
}

pub(crate) fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, flag::ACK, 0, &[])
}

pub(crate) fn ping(flags: u8, opaque: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, flags, 0, &opaque)
}

pub(crate) fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, &code.to_be_bytes())
}

pub(crate) fn goaway(last_stream: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    frame(
        kind::GOAWAY,
        flag::NONE,
        0,
        &[&last_stream.to_be_bytes()[..], &code.to_be_bytes()[..], debug].concat(),
    )
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, flag::NONE, stream, &increment.to_be_bytes())
}

/// A payload with its pad length before and `pad` zeros behind, for a frame with the PADDED flag.
pub(crate) fn padded(pad: u8, payload: &[u8]) -> Vec<u8> {
    [&[pad][..], payload, &vec![0; usize::from(pad)]].concat()
}

fn length_of(head: [u8; HEAD_BYTES]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}
