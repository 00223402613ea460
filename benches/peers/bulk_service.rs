//! One HTTP/2 connection of the benchmark's servers for bulk: a call that is answered with 10,000 messages of 1 KiB, or one whose messages are counted.
//!
//! Messages of a stream go out in a DATA frame each, as grpc-go sends them; calls on one connection take turns, so nothing is put into the header table. Windows are kept; header blocks are not decoded, since the port says what is served. What
//! a client checks of it stands in `bulk_load`.

use super::conversation::{
    ACK, CONNECTION_WINDOW_BYTES, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, LITERAL_RESPONSE,
    LITERAL_TRAILERS, PING, READ_BYTES, SETTINGS, TOP_UP_BYTES, WINDOW_UPDATE, parse, put_frame,
    read_preface, u32_at,
};
use anyhow::ensure;
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// Messages that a streaming call is answered with.
pub(super) const STREAMED_MESSAGES: u32 = 10_000;
/// Payload of each.
pub(super) const STREAMED_PAYLOAD_BYTES: usize = 1024;
/// gRPC's length prefix: a flag and four bytes of length.
pub(super) const PREFIX_BYTES: usize = 5;

/// The initial window of a connection, and of its streams where SETTINGS do not say otherwise (RFC 9113 section 6.9.2).
const WINDOW_BYTES_DEFAULT: i64 = 65_535;
/// What an upload may have on its way.
const UPLOAD_WINDOW_BYTES: u32 = 16 << 20;
/// Sent of one call before the next has its turn.
const TURN_MESSAGES: u32 = 128;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    Stream,
    Sink,
}

/// One connection.
pub(super) struct BulkService<S> {
    stream: S,
    bulk: Bulk,
    out: Vec<u8>,
    calls: BTreeMap<u32, Call>,
    window_bytes: i64,
    stream_window_bytes: i64,
}

struct Call {
    window_bytes: i64,
    received_bytes: u64,
    /// Of which the windows have not been topped up.
    ungranted_bytes: u32,
    /// The client has sent all of its messages.
    is_asked: bool,
    has_headers: bool,
    sent: u32,
}

/// Message `number` of a stream, with its prefix; another one for each number.
pub(super) fn streamed_message(number: u32) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(STREAMED_PAYLOAD_BYTES as u32).to_be_bytes());
    message.extend((0..STREAMED_PAYLOAD_BYTES).map(|at| (at.wrapping_mul(167) ^ (at >> 8)) as u8));
    number_message(&mut message, number);
    message
}

/// Makes another message of a stream out of one, which is cheap.
pub(super) fn number_message(message: &mut [u8], number: u32) {
    message[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&number.to_be_bytes());
}

impl<S: Read + Write> BulkService<S> {
    pub(super) fn new(stream: S, bulk: Bulk) -> Self {
        Self {
            stream,
            bulk,
            out: Vec::new(),
            calls: BTreeMap::new(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            stream_window_bytes: WINDOW_BYTES_DEFAULT,
        }
    }

    /// Serves it until the client ends it.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        read_preface(&mut self.stream)?;
        self.frame(SETTINGS, 0, 0, &[&4_u16.to_be_bytes(), &UPLOAD_WINDOW_BYTES.to_be_bytes()]);
        self.frame(WINDOW_UPDATE, 0, 0, &[&CONNECTION_WINDOW_BYTES.to_be_bytes()]);

        let mut message = streamed_message(0);
        let (mut input, mut filled) = (vec![0; READ_BYTES], 0);
        loop {
            while self.produce(&mut message) {
                self.flush()?;
            }
            self.flush()?;
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

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> anyhow::Result<()> {
        match frame.kind {
            HEADERS => {
                let window_bytes = self.stream_window_bytes;
                let call = Call {
                    window_bytes,
                    received_bytes: 0,
                    ungranted_bytes: 0,
                    is_asked: false,
                    has_headers: false,
                    sent: 0,
                };
                self.calls.insert(frame.stream, call);
            }
            DATA => self.data(frame),
            SETTINGS if frame.flags & ACK == 0 => self.settings(frame.payload)?,
            PING if frame.flags & ACK == 0 => self.frame(PING, ACK, 0, &[frame.payload]),
            WINDOW_UPDATE => {
                let granted = i64::from(u32_at(frame.payload, 0)?);
                match self.calls.get_mut(&frame.stream) {
                    Some(call) => call.window_bytes += granted,
                    None if frame.stream == 0 => self.window_bytes += granted,
                    // Of a call that has ended.
                    None => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        for setting in payload.chunks_exact(6).filter(|setting| setting[1] == 4) {
            let window_bytes = i64::from(u32_at(setting, 2)?);
            let more = window_bytes - std::mem::replace(&mut self.stream_window_bytes, window_bytes);
            // RFC 9113 section 6.9.2: open streams change by the difference.
            self.calls.values_mut().for_each(|call| call.window_bytes += more);
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    fn data(&mut self, frame: &Frame) {
        let Some(call) = self.calls.get_mut(&frame.stream) else { return };
        call.received_bytes += frame.payload.len() as u64;
        call.ungranted_bytes += frame.payload.len() as u32;
        call.is_asked = frame.flags & END_STREAM != 0;
        if call.ungranted_bytes >= TOP_UP_BYTES || call.is_asked {
            let more = std::mem::take(&mut call.ungranted_bytes).to_be_bytes();
            let is_asked = call.is_asked;
            if more != [0; 4] {
                self.frame(WINDOW_UPDATE, 0, 0, &[&more]);
            }
            if !is_asked {
                self.frame(WINDOW_UPDATE, 0, frame.stream, &[&more]);
            }
        }
    }

    /// Lets each call that is asked have its turn; false where nothing more can be sent for now.
    fn produce(&mut self, message: &mut [u8]) -> bool {
        let mut calls = std::mem::take(&mut self.calls);
        let before = self.out.len();
        calls.retain(|&stream, call| !call.is_asked || !self.turn(stream, call, message));
        self.calls = calls;
        self.out.len() > before
    }

    /// Sends of one call's answer what its turn and the windows allow; true where that was the rest.
    fn turn(&mut self, stream: u32, call: &mut Call, message: &mut [u8]) -> bool {
        if !std::mem::replace(&mut call.has_headers, true) {
            self.frame(HEADERS, END_HEADERS, stream, &[LITERAL_RESPONSE]);
        }
        if self.bulk == Bulk::Sink {
            let count = call.received_bytes.to_be_bytes();
            self.frame(DATA, 0, stream, &[&[0, 0, 0, 0, count.len() as u8], &count]);
        } else {
            let length = message.len() as i64;
            let most = (call.sent + TURN_MESSAGES).min(STREAMED_MESSAGES);
            while call.sent < most && call.window_bytes.min(self.window_bytes) >= length {
                number_message(message, call.sent);
                self.frame(DATA, 0, stream, &[message]);
                call.sent += 1;
                call.window_bytes -= length;
                self.window_bytes -= length;
            }
            if call.sent < STREAMED_MESSAGES {
                return false;
            }
        }
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &[LITERAL_TRAILERS]);
        true
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[&[u8]]) {
        put_frame(&mut self.out, kind, flags, stream, payload);
    }
}
