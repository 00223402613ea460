//! One HTTP/2 connection of the benchmark's own gRPC server: every unary call answered with its message and `grpc-status: 0`, at next to no cost of its own.
//!
//! It speaks the HTTP/2 that the benchmarks need: request header blocks are not decoded (any path is the echo), windows are kept, whatever else it does not know ends
//! it with a message. Not a server for anything else.

use anyhow::{Context as _, bail, ensure};
use attestry::http2::PREFACE;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are read at a time; more than one frame of the default SETTINGS_MAX_FRAME_SIZE.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// SETTINGS_MAX_FRAME_SIZE that every peer takes (RFC 9113 section 6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// The initial window of a connection, and of its streams where SETTINGS do not say otherwise (RFC 9113 section 6.9.2).
const WINDOW_BYTES_DEFAULT: i64 = 65_535;
/// What this server grants: each stream at once, and the connection again and again.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// The connection's window is topped up after this much.
pub(super) const TOP_UP_BYTES: u32 = 1 << 20;

/// RFC 9113 section 4.1.
const HEADER_BYTES: usize = 9;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// `:status: 200`, and `content-type: application/grpc` put into the table (RFC 7541 sections 6.1 and 6.2.1).
pub(super) const FIRST_RESPONSE: &[u8] = b"\x88\x5f\x10application/grpc";
/// `grpc-status: 0`, put into the table in front of it.
pub(super) const FIRST_TRAILERS: &[u8] = b"\x40\x0bgrpc-status\x010";
/// The same out of the table: entry 63 of the one index space, then entry 62.
pub(super) const NEXT_RESPONSE: &[u8] = b"\x88\xbf";
pub(super) const NEXT_TRAILERS: &[u8] = b"\xbe";

/// The same two, kept out of the table (section 6.2.2).
pub(super) const LITERAL_RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";
pub(super) const LITERAL_TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// The literal response behind the notice that the table is of no size now (sections 4.2 and 6.3).
const FIRST_LITERAL_RESPONSE: &[u8] = b"\x20\x88\x0f\x10\x10application/grpc";
/// SETTINGS_HEADER_TABLE_SIZE where nothing is said (RFC 9113 section 6.5.2); the two entries here need far less.
const TABLE_BYTES_DEFAULT: u32 = 4096;

/// Calls answered by this process.
pub(super) static CALLS: AtomicU64 = AtomicU64::new(0);

/// One connection: TCP, or TLS over it.
pub(super) struct Conversation<S> {
    stream: S,
    out: Vec<u8>,
    /// Messages of which only a part has come.
    partial: HashMap<u32, Vec<u8>>,
    /// Answers that the connection's window has no room for.
    waiting: VecDeque<(u32, Vec<u8>)>,
    window_bytes: i64,
    stream_window_bytes: i64,
    received_bytes: u32,
    has_answered: bool,
    /// The client keeps no header table, as nginx.
    has_no_table: bool,
}

/// A frame, as it came.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<S: Read + Write> Conversation<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            out: Vec::new(),
            partial: HashMap::new(),
            waiting: VecDeque::new(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            stream_window_bytes: WINDOW_BYTES_DEFAULT,
            received_bytes: 0,
            has_answered: false,
            has_no_table: false,
        }
    }

    /// Serves it until the client ends it.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        read_preface(&mut self.stream)?;
        self.frame(SETTINGS, 0, 0, &[&4_u16.to_be_bytes(), &STREAM_WINDOW_BYTES.to_be_bytes()]);
        self.frame(WINDOW_UPDATE, 0, 0, &[&CONNECTION_WINDOW_BYTES.to_be_bytes()]);

        let mut input = vec![0; READ_BYTES];
        let mut filled = 0;
        loop {
            self.stream.write_all(&self.out)?;
            self.out.clear();
            match self.stream.read(&mut input[filled..]) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(read) => filled += read,
            }
            let mut at = 0;
            while let Some((frame, length)) = parse(&input[at..filled]) {
                self.take(&frame)?;
                at += length;
            }
            input.copy_within(at..filled, 0);
            filled -= at;
            ensure!(filled < READ_BYTES, "the backend was sent a frame above SETTINGS_MAX_FRAME_SIZE");
        }
    }

    fn take(&mut self, frame: &Frame) -> anyhow::Result<()> {
        ensure!(frame.kind > HEADERS || frame.flags & PADDED == 0, "the backend knows no padding");
        match frame.kind {
            DATA => self.data(frame)?,
            HEADERS if frame.flags & END_STREAM != 0 => {
                bail!("the backend was sent a call without a message")
            }
            SETTINGS if frame.flags & ACK == 0 => self.settings(frame.payload)?,
            PING if frame.flags & ACK == 0 => self.frame(PING, ACK, 0, &[frame.payload]),
            WINDOW_UPDATE if frame.stream == 0 => {
                self.window_bytes += i64::from(u32_at(frame.payload, 0)?);
                self.answer_waiting();
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        for setting in payload.chunks_exact(6) {
            let value = u32_at(setting, 2)?;
            match setting[1] {
                1 => {
                    ensure!(
                        value == 0 || value >= TABLE_BYTES_DEFAULT,
                        "the backend knows only the default header table or none, and was asked for {value} bytes"
                    );
                    self.has_no_table = value == 0;
                }
                4 => self.stream_window_bytes = i64::from(value),
                _ => {}
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    fn data(&mut self, frame: &Frame) -> anyhow::Result<()> {
        self.received_bytes += u32::try_from(frame.payload.len()).context("a frame is shorter than 4 GiB")?;
        if self.received_bytes >= TOP_UP_BYTES {
            let received = std::mem::take(&mut self.received_bytes);
            self.frame(WINDOW_UPDATE, 0, 0, &[&received.to_be_bytes()]);
        }
        let ends = frame.flags & END_STREAM != 0;
        match self.partial.remove(&frame.stream) {
            None if ends => self.answer(frame.stream, frame.payload),
            begun => {
                let mut message = begun.unwrap_or_default();
                message.extend_from_slice(frame.payload);
                if ends {
                    return self.answer(frame.stream, &message);
                }
                self.partial.insert(frame.stream, message);
                Ok(())
            }
        }
    }

    fn answer(&mut self, stream: u32, message: &[u8]) -> anyhow::Result<()> {
        ensure!(
            message.len() as i64 <= self.stream_window_bytes,
            "a message is longer than a stream's initial window"
        );
        if !self.waiting.is_empty() || self.window_bytes < message.len() as i64 {
            self.waiting.push_back((stream, message.to_vec()));
            return Ok(());
        }
        self.write_answer(stream, message);
        Ok(())
    }

    fn answer_waiting(&mut self) {
        while self.waiting.front().is_some_and(|(_, message)| self.window_bytes >= message.len() as i64)
            && let Some((stream, message)) = self.waiting.pop_front()
        {
            self.write_answer(stream, &message);
        }
    }

    fn write_answer(&mut self, stream: u32, message: &[u8]) {
        let is_first = !std::mem::replace(&mut self.has_answered, true);
        let (response, trailers) = match (is_first, self.has_no_table) {
            (true, false) => (FIRST_RESPONSE, FIRST_TRAILERS),
            (false, false) => (NEXT_RESPONSE, NEXT_TRAILERS),
            (true, true) => (FIRST_LITERAL_RESPONSE, LITERAL_TRAILERS),
            (false, true) => (LITERAL_RESPONSE, LITERAL_TRAILERS),
        };
        self.frame(HEADERS, END_HEADERS, stream, &[response]);
        for part in message.chunks(FRAME_BYTES_MAX) {
            self.frame(DATA, 0, stream, &[part]);
        }
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &[trailers]);
        self.window_bytes -= message.len() as i64;
        CALLS.fetch_add(1, Ordering::Relaxed);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[&[u8]]) {
        put_frame(&mut self.out, kind, flags, stream, payload);
    }
}

/// Reads what a client of HTTP/2 begins with (RFC 9113 section 3.4).
pub(super) fn read_preface(stream: &mut impl Read) -> anyhow::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    ensure!(preface[..] == PREFACE[..], "the backend was spoken to in something that is not HTTP/2");
    Ok(())
}

/// Appends a frame (RFC 9113 section 4.1).
pub(super) fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    for part in payload {
        out.extend_from_slice(part);
    }
}

/// The frame at the beginning of `bytes` and its whole length (RFC 9113 section 4.1), if it is all there.
pub(super) fn parse(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = HEADER_BYTES + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let payload = bytes.get(HEADER_BYTES..length)?;
    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
    Some((Frame { kind: header[3], flags: header[4], stream, payload }, length))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    let bytes = bytes.get(at..at + 4).context("the backend was sent a frame that is too short")?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
