//! A server that bears everything: it reads whatever comes, answers each call that ends with its own bytes, and complains of nothing.
//!
//! A real server would end most attacks at once, and with them what they do to the sidecar. What it received of each kind of frame is counted.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::frames::{self, PREFACE, code, flag, kind};
use crate::hpack::{at, indexed, literal, literal_at};

const READ_BYTES: usize = 64 * 1024;

/// Calls with more bytes than that are no echo's business: their bytes are counted and forgotten.
const ECHO_BYTES_MAX: usize = 64 * 1024;

/// What all connections together have brought, by frame type: frames, and bytes of their payloads.
pub(crate) type Counts = BTreeMap<u8, (u64, u64)>;

/// A server for as long as the test runs.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Upstream {
    /// On a free port; it speaks what its client speaks, which it waits for.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::<Mutex<Counts>>::default();
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for socket in listener.incoming() {
                // A connection that was reset before it was accepted is nobody's loss.
                let Ok(socket) = socket else { continue };
                let counts = Arc::clone(&shared);
                thread::spawn(move || serve(&socket, &counts));
            }
        });
        Self { addr, counts }
    }

    /// Frames of this type that have come, and the bytes in them.
    pub(crate) fn received(&self, kind: u8) -> (u64, u64) {
        self.counts.lock().unwrap().get(&kind).copied().unwrap_or_default()
    }
}

fn serve(mut socket: &TcpStream, counts: &Mutex<Counts>) {
    // The connection may be gone already.
    let _ = socket.set_nodelay(true);
    let mut buffer = vec![0; READ_BYTES];
    let mut pending = Vec::new();
    loop {
        match socket.read(&mut buffer) {
            Ok(length @ 1..) => pending.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
        if pending.starts_with(PREFACE) {
            pending.drain(..PREFACE.len());
            return http2(socket, pending, &mut buffer, counts);
        } else if !PREFACE.starts_with(&pending) {
            return http1(socket, pending, &mut buffer);
        }
    }
}

fn http2(mut socket: &TcpStream, mut pending: Vec<u8>, buffer: &mut [u8], counts: &Mutex<Counts>) {
    let window = (1 << 31) - 1;
    let settings = frames::settings(&[(frames::setting::INITIAL_WINDOW_SIZE, window)]);
    let mut answer = [settings, frames::window_update(0, window - 65_535)].concat();
    let mut bodies = BTreeMap::new();
    loop {
        let mut at = 0;
        while let Some((head, payload)) = whole_frame(&pending[at..]) {
            at += 9 + payload.len();
            let mut counts = counts.lock().unwrap();
            let (frames, bytes) = counts.entry(head[3]).or_default();
            (*frames, *bytes) = (*frames + 1, *bytes + payload.len() as u64);
            drop(counts);
            answer.extend(reply(head, payload, &mut bodies));
        }
        pending.drain(..at);
        if socket.write_all(&answer).is_err() {
            return;
        }
        answer.clear();
        match socket.read(buffer) {
            Ok(length @ 1..) => pending.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn whole_frame(bytes: &[u8]) -> Option<(&[u8; 9], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    Some((head, rest.get(..length)?))
}

fn reply(head: &[u8; 9], payload: &[u8], bodies: &mut BTreeMap<u32, Vec<u8>>) -> Vec<u8> {
    let (kind, flags) = (head[3], head[4]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
    let ends = kind <= kind::HEADERS && flags & flag::END_STREAM != 0;
    match kind {
        kind::HEADERS => drop(bodies.insert(stream, Vec::new())),
        kind::DATA => {
            let body = bodies.get_mut(&stream).filter(|body| body.len() < ECHO_BYTES_MAX);
            if let Some(body) = body {
                body.extend_from_slice(payload);
            }
        }
        kind::RST_STREAM => drop(bodies.remove(&stream)),
        kind::SETTINGS if flags & flag::ACK == 0 => return frames::settings_ack(),
        kind::PING if flags & flag::ACK == 0 && payload.len() == 8 => {
            return frames::frame(kind::PING, flag::ACK, 0, payload);
        }
        // A window update of nothing is the client's way to make a server reset the stream (CVE-2025-8671).
        kind::WINDOW_UPDATE if stream != 0 && payload == [0; 4] => {
            bodies.remove(&stream);
            return frames::rst_stream(stream, code::PROTOCOL_ERROR);
        }
        _ => {}
    }
    let ended = if ends { bodies.remove(&stream) } else { None };
    ended.map(|body| echo(stream, &body)).unwrap_or_default()
}

fn echo(stream: u32, body: &[u8]) -> Vec<u8> {
    let begin = [indexed(at::STATUS), literal_at(at::CONTENT_TYPE, "application/grpc")].concat();
    let end = literal("grpc-status", "0");
    let data = body.chunks(16_384).flat_map(|part| frames::data(stream, flag::NONE, part)).collect();
    let (begin, end) =
        (frames::headers(stream, flag::NONE, &begin), frames::headers(stream, flag::END_STREAM, &end));
    [begin, data, end].concat()
}

/// Each empty line counts as a head's end, and is answered: nobody here reads HTTP/1. Who asks for `/half` gets half an answer.
fn http1(mut socket: &TcpStream, mut last: Vec<u8>, buffer: &mut [u8]) {
    if last.starts_with(b"GET /half") && socket.write_all(b"HTTP/1.1 200 O").is_ok() {
        while matches!(socket.read(buffer), Ok(1..)) {}
    }
    loop {
        let ends = last.windows(4).filter(|four| *four == b"\r\n\r\n").count();
        // An end that is cut by this read is found in the next.
        last.drain(..last.len().saturating_sub(3));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".repeat(ends);
        if socket.write_all(&answer).is_err() {
            return;
        }
        match socket.read(buffer) {
            Ok(length @ 1..) => last.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
}
