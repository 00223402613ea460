//! An HTTP/2 client connection of the benchmark's own, one call at a time: for what h2load cannot do, which is sending a message after another and looking at trailers.
//!
//! Windows are kept, header blocks decoded, and an answer that is not `:status: 200` of gRPC's type with `grpc-status: 0` at its end is an error. Blocking, and bounded by a wait.

use super::conversation::{
    ACK, CONNECTION_WINDOW_BYTES, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, READ_BYTES, SETTINGS,
    TOP_UP_BYTES, WINDOW_UPDATE, parse, put_frame, u32_at,
};
use anyhow::{Context as _, bail, ensure};
use attestry::http2::{Decoder, PREFACE, frame};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest silence of the other side.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// SETTINGS_MAX_FRAME_SIZE that every peer takes (RFC 9113 section 6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// The initial window of connections and streams (RFC 9113 section 6.9.2).
const WINDOW_BYTES_DEFAULT: i64 = 65_535;
/// More than a whole answer, so that only the connection's window is ever topped up.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Written at a time.
const WRITE_BYTES: usize = 256 * 1024;
/// Of a decoded header list.
const LIST_BYTES_MAX: usize = 16 * 1024;

/// A connection, and the call on it.
pub(super) struct Client {
    tcp: TcpStream,
    authority: String,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    hpack: Decoder,
    /// What may still be sent on the connection, and on the call's stream.
    window_bytes: i64,
    stream_window_bytes: i64,
    stream_window_bytes_initial: i64,
    received_bytes: u32,
    newest: Option<u32>,
    answer: Answer,
}

/// What has come of the call's answer.
#[derive(Default)]
struct Answer {
    has_status: bool,
    has_grpc_status: bool,
    is_whole: bool,
    /// Not looked at yet.
    data: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(WAIT_MAX))?;
        tcp.set_write_timeout(Some(WAIT_MAX))?;
        let mut out = PREFACE.to_vec();
        out.extend(frame::settings(&[(4, STREAM_WINDOW_BYTES)]));
        out.extend(frame::window_update(0, CONNECTION_WINDOW_BYTES));
        Ok(Self {
            tcp,
            authority: address.to_string(),
            out,
            input: vec![0; READ_BYTES],
            filled: 0,
            hpack: Decoder::new(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            stream_window_bytes: WINDOW_BYTES_DEFAULT,
            stream_window_bytes_initial: WINDOW_BYTES_DEFAULT,
            received_bytes: 0,
            newest: None,
            answer: Answer::default(),
        })
    }

    /// Begins a call, whose predecessor has ended.
    pub(super) fn begin(&mut self, path: &str) {
        let stream = self.newest.map_or(1, |newest| newest + 2);
        self.newest = Some(stream);
        self.answer = Answer::default();
        self.stream_window_bytes = self.stream_window_bytes_initial;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self.authority.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        self.out.extend(frame::headers_literal(stream, false, &fields, FRAME_BYTES_MAX));
    }

    /// Sends a message, with its prefix, once the windows allow it; with `ends`, it is the last of the call.
    pub(super) fn send(&mut self, message: &[u8], ends: bool) -> anyhow::Result<()> {
        let stream = self.newest.context("no call has begun")?;
        let mut rest = message;
        while !rest.is_empty() {
            let room = self.window_bytes.min(self.stream_window_bytes).max(0) as usize;
            if room == 0 {
                self.flush()?;
                self.read().context("while the windows are used up")?;
                continue;
            }
            let (part, behind) = rest.split_at(rest.len().min(room).min(FRAME_BYTES_MAX));
            let flags = if ends && behind.is_empty() { END_STREAM } else { 0 };
            put_frame(&mut self.out, DATA, flags, stream, &[part]);
            self.window_bytes -= part.len() as i64;
            self.stream_window_bytes -= part.len() as i64;
            rest = behind;
            if self.out.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Receives the answer to its end; what comes of its messages goes to `look`, in pieces as they come.
    pub(super) fn answer(&mut self, mut look: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
            self.flush()?;
            let mut data = std::mem::take(&mut self.answer.data);
            look(&data)?;
            data.clear();
            self.answer.data = data;
            if self.answer.is_whole {
                break;
            }
            self.read().context("while the answer has not ended")?;
        }
        ensure!(self.answer.has_status, "an answer without :status");
        ensure!(self.answer.has_grpc_status, "an answer without grpc-status");
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.tcp.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let read = self.tcp.read(&mut self.input[self.filled..])?;
        ensure!(read > 0, "the server has ended the connection");
        self.filled += read;
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((frame, length)) = parse(&input[at..self.filled]) {
            self.take(&frame)?;
            at += length;
        }
        input.copy_within(at..self.filled, 0);
        self.input = input;
        self.filled -= at;
        ensure!(self.filled < READ_BYTES, "a frame above SETTINGS_MAX_FRAME_SIZE");
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> anyhow::Result<()> {
        match frame.kind {
            HEADERS => self.headers(frame)?,
            DATA => {
                ensure!(frame.flags & 0x8 == 0, "padded DATA");
                self.answer.data.extend_from_slice(frame.payload);
                self.answer.is_whole |= frame.flags & END_STREAM != 0;
                self.received_bytes += frame.payload.len() as u32;
                if self.received_bytes >= TOP_UP_BYTES {
                    let received = std::mem::take(&mut self.received_bytes).to_be_bytes();
                    put_frame(&mut self.out, WINDOW_UPDATE, 0, 0, &[&received]);
                }
            }
            SETTINGS if frame.flags & ACK == 0 => self.settings(frame.payload)?,
            PING if frame.flags & ACK == 0 => put_frame(&mut self.out, PING, ACK, 0, &[frame.payload]),
            WINDOW_UPDATE if frame.stream == 0 => self.window_bytes += i64::from(u32_at(frame.payload, 0)?),
            WINDOW_UPDATE if Some(frame.stream) == self.newest => {
                self.stream_window_bytes += i64::from(u32_at(frame.payload, 0)?);
            }
            SETTINGS | PING | WINDOW_UPDATE => {}
            kind => bail!("the server has sent a frame of type {kind}: {:?}", frame.payload),
        }
        Ok(())
    }

    fn headers(&mut self, frame: &Frame) -> anyhow::Result<()> {
        ensure!(
            frame.flags & !END_STREAM == END_HEADERS,
            "a header block that is padded, weighted or continued"
        );
        let mut fields = Vec::new();
        self.hpack.decode(frame.payload, LIST_BYTES_MAX, &mut fields)?;
        for field in fields {
            let expected: &[u8] = match &field.name[..] {
                b":status" => b"200",
                b"grpc-status" => b"0",
                b"content-type" => b"application/grpc",
                _ => continue,
            };
            ensure!(field.value == expected, "the answer says {:?}: {:?}", field.name, field.value);
            self.answer.has_status |= expected == b"200";
            self.answer.has_grpc_status |= expected == b"0";
        }
        self.answer.is_whole |= frame.flags & END_STREAM != 0;
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        for setting in payload.chunks_exact(6).filter(|setting| setting[1] == 4) {
            let window_bytes = i64::from(u32_at(setting, 2)?);
            let before = std::mem::replace(&mut self.stream_window_bytes_initial, window_bytes);
            self.stream_window_bytes += window_bytes - before;
        }
        put_frame(&mut self.out, SETTINGS, ACK, 0, &[]);
        Ok(())
    }
}
