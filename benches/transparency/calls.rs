//! A gRPC client that costs next to nothing: unary calls of the conversation that `peers/conversation.rs` holds, every answer compared to the last byte.
//!
//! It knows what the server's header blocks look like, since both are the benchmark's own: frames that come back otherwise, or in another order, are an error.

use super::conversation::{
    ACK, CONNECTION_WINDOW_BYTES, DATA, END_HEADERS, END_STREAM, FIRST_RESPONSE, FIRST_TRAILERS, Frame,
    HEADERS, NEXT_RESPONSE, NEXT_TRAILERS, PING, READ_BYTES, SETTINGS, STREAM_WINDOW_BYTES, TOP_UP_BYTES,
    WINDOW_UPDATE, parse, put_frame,
};
use super::load::Tally;
use super::talks::{Dial, Talk, Wire};
use anyhow::{Context as _, bail, ensure};
use attestry::http2::PREFACE;
use std::collections::HashMap;
use std::time::Instant;

const PAYLOAD_BYTES: u8 = 100;

/// `:method: POST`, `:scheme: http`, and path, authority, content type and `te` put into the table (RFC 7541 sections 6.1 and 6.2.1).
const FIRST_REQUEST: &[u8] = b"\x83\x86\x44\x1a/attestry.bench.Echo/Unary\x41\x0fservice.example\x5f\x10application/grpc\x40\x02te\x08trailers";
/// The same out of the table, which has the newest first.
const NEXT_REQUEST: &[u8] = b"\x83\x86\xc1\xc0\xbf\xbe";

/// A connection with so many calls open at all times.
pub(super) struct Calls {
    wire: Box<dyn Wire>,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    message: Vec<u8>,
    open: HashMap<u32, Call>,
    newest: u32,
    has_answers: bool,
    received_bytes: usize,
}

struct Call {
    begun: Instant,
    /// The server's first header block has come.
    has_headers: bool,
    received: Vec<u8>,
}

impl Calls {
    /// Begins the conversation, and the first calls.
    pub(super) fn new(wire: Box<dyn Wire>, streams: usize) -> anyhow::Result<Self> {
        let mut calls = Self {
            wire,
            out: PREFACE.to_vec(),
            input: vec![0; READ_BYTES],
            filled: 0,
            message: message(),
            open: HashMap::new(),
            newest: 0,
            has_answers: false,
            received_bytes: 0,
        };
        let window = [&4_u16.to_be_bytes()[..], &STREAM_WINDOW_BYTES.to_be_bytes()].concat();
        put_frame(&mut calls.out, SETTINGS, 0, 0, &[&window]);
        put_frame(&mut calls.out, WINDOW_UPDATE, 0, 0, &[&CONNECTION_WINDOW_BYTES.to_be_bytes()]);
        (0..streams).for_each(|_| calls.call());
        calls.send()?;
        Ok(calls)
    }

    /// Reads once; returns when the calls had begun that ended with it.
    fn read(&mut self) -> anyhow::Result<Vec<Instant>> {
        let read = self.wire.read(&mut self.input[self.filled..])?;
        ensure!(read > 0, "the server has ended a connection with calls open");
        self.filled += read;
        let input = std::mem::take(&mut self.input);
        let (mut at, mut ended) = (0, Vec::new());
        while let Some((frame, length)) = parse(&input[at..self.filled]) {
            ended.extend(self.take(&frame)?);
            at += length;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        ensure!(self.filled < READ_BYTES, "a frame above SETTINGS_MAX_FRAME_SIZE");
        Ok(ended)
    }

    fn take(&mut self, frame: &Frame) -> anyhow::Result<Option<Instant>> {
        match frame.kind {
            DATA | HEADERS => return self.answer(frame),
            SETTINGS if frame.flags & ACK == 0 => put_frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => put_frame(&mut self.out, PING, ACK, 0, &[frame.payload]),
            SETTINGS | PING | WINDOW_UPDATE => {}
            kind => bail!("the server has sent a frame of type {kind}"),
        }
        Ok(None)
    }

    fn answer(&mut self, frame: &Frame) -> anyhow::Result<Option<Instant>> {
        let call = self.open.get_mut(&frame.stream).context("an answer to no call")?;
        if frame.kind == DATA {
            call.received.extend_from_slice(frame.payload);
            self.received_bytes += frame.payload.len();
            if self.received_bytes >= TOP_UP_BYTES as usize {
                let received = std::mem::take(&mut self.received_bytes) as u32;
                put_frame(&mut self.out, WINDOW_UPDATE, 0, 0, &[&received.to_be_bytes()]);
            }
            return Ok(None);
        }
        if frame.flags & END_STREAM == 0 {
            let expected = if self.has_answers { NEXT_RESPONSE } else { FIRST_RESPONSE };
            ensure!(frame.payload == expected, "other response headers than the server's");
            call.has_headers = true;
            return Ok(None);
        }
        let expected = if self.has_answers { NEXT_TRAILERS } else { FIRST_TRAILERS };
        self.has_answers = true;
        ensure!(frame.payload == expected, "other trailers than the server's");
        ensure!(call.has_headers && call.received == self.message, "the message came back as another one");
        Ok(self.open.remove(&frame.stream).map(|call| call.begun))
    }

    fn call(&mut self) {
        let is_first = self.newest == 0;
        self.newest = if is_first { 1 } else { self.newest + 2 };
        let request = if is_first { FIRST_REQUEST } else { NEXT_REQUEST };
        put_frame(&mut self.out, HEADERS, END_HEADERS, self.newest, &[request]);
        put_frame(&mut self.out, DATA, END_STREAM, self.newest, &[&self.message]);
        self.open
            .insert(self.newest, Call { begun: Instant::now(), has_headers: false, received: Vec::new() });
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.wire.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

impl Talk for Calls {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        for begun in self.read()? {
            tally.done(begun, 1);
            self.call();
        }
        self.send()
    }
}

/// A connection for each call.
pub(super) struct CallOnce {
    pub(super) dial: Dial,
}

impl Talk for CallOnce {
    fn turn(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut calls = Calls::new(self.dial.connect()?, 1)?;
        while calls.read()?.is_empty() {
            calls.send()?;
        }
        tally.done(begun, 1);
        Ok(())
    }
}

/// A length-prefixed message.
fn message() -> Vec<u8> {
    [0, 0, 0, 0, PAYLOAD_BYTES].into_iter().chain(0..PAYLOAD_BYTES).collect()
}
