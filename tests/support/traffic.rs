//! Peers that know exactly what they received: an echoing HTTP/2 server and a client that keeps calls open, on plain
//! threads and sockets, with every byte that they read kept as it came.
//!
//! Nothing is judged while they run: `Receipts::of` takes the kept bytes apart afterwards. Windows are opened wide once, so
//! nobody has to count them. Header blocks are literals, which the relay forwards as they are. Not here: what is sent
//! (`load.rs`), the ledger (`evidence.rs`), processes (`process.rs`).
#![allow(dead_code)] // Each test binary that takes this module in uses its own part of it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What every client sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
pub(crate) const CANCEL: u32 = 8;

/// The largest window (RFC 9113 section 6.9.1): more than any test here sends on one connection.
const WINDOW: u32 = (1 << 31) - 1;

/// A peer that hears nothing for so long has met a defect, not a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A DATA frame.
pub(crate) fn data(stream: u32, payload: &[u8], is_last: bool) -> Vec<u8> {
    frame(DATA, u8::from(is_last) * END_STREAM, stream, payload)
}

/// RST_STREAM with CANCEL, as a client sends that wants no answer any more.
pub(crate) fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A gRPC message with its prefix.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// The header block that opens call `call`.
pub(crate) fn open_call(stream: u32, path: &str, call: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "echo.test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("x-call", call),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// The headers of a response to call `call`.
pub(crate) fn begin_response(stream: u32, call: &str) -> Vec<u8> {
    let fields = [(":status", "200"), ("content-type", "application/grpc"), ("x-call", call)];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// Its trailers.
pub(crate) fn end_response(stream: u32, call: &str) -> Vec<u8> {
    let fields = [("grpc-status", "0"), ("x-end", call)];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// SETTINGS and WINDOW_UPDATE: what both peers begin with.
pub(crate) fn greeting() -> Vec<u8> {
    let settings = [&4u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
    let more = (WINDOW - 65_535).to_be_bytes();
    [frame(SETTINGS, 0, 0, &settings), frame(WINDOW_UPDATE, 0, 0, &more)].concat()
}

/// Literals without indexing, without Huffman coding (RFC 7541 section 6.2.2); all texts are short.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127, "a length of one byte");
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Reads such a block, from whoever wrote it.
fn fields(mut block: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some((&first, rest)) = block.split_first() {
        assert!(first & 0xef == 0, "a literal without indexing and with a name, not {first:#x}");
        block = rest;
        let name = text(&mut block);
        let value = text(&mut block);
        fields.insert(name, value);
    }
    fields
}

fn text(block: &mut &[u8]) -> String {
    let mut length = usize::from(block[0]);
    assert!(length <= 127, "no Huffman coding");
    *block = &block[1..];
    let mut shift = 0;
    while length >= 127 {
        length += usize::from(block[0] & 0x7f) << shift;
        shift += 7;
        let is_last = block[0] & 0x80 == 0;
        *block = &block[1..];
        if is_last {
            break;
        }
    }
    let (text, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8(text.to_vec()).unwrap()
}

/// One frame as it was received.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// DATA, or HEADERS, and the last of its side.
    pub(crate) fn ends_stream(&self) -> bool {
        self.kind <= HEADERS && self.flags & END_STREAM != 0
    }
}

/// Takes the first whole frame off `bytes`.
fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let head = bytes.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
    let (kind, flags) = (head[3], head[4]);
    let payload = bytes.get(9..9 + length)?;
    *bytes = &bytes[9 + length..];
    Some(Frame { kind, flags, stream, payload })
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Request,
    Response,
}

/// Everything that one peer received of one call.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) call: String,
    pub(crate) way: Way,
    /// The bytes of its DATA frames.
    pub(crate) data: Vec<u8>,
    /// The direction's end: END_STREAM on DATA of a request, trailers of a response.
    pub(crate) ended: bool,
    /// The client's RST_STREAM.
    pub(crate) cancelled: bool,
}

/// What one connection brought to one peer.
#[derive(Default, Debug)]
pub(crate) struct Receipts {
    pub(crate) calls: Vec<Receipt>,
    /// Messages of the status UNAVAILABLE that the sidecar itself answered with.
    pub(crate) refusals: Vec<String>,
    /// Streams that the sidecar itself reset.
    pub(crate) resets: usize,
}

impl Receipts {
    /// Takes apart what a peer read.
    pub(crate) fn of(way: Way, raw: &[u8]) -> Self {
        let mut bytes = raw.strip_prefix(PREFACE).unwrap_or(raw);
        let mut receipts = Self::default();
        let mut streams = BTreeMap::new();
        while let Some(frame) = next_frame(&mut bytes) {
            receipts.add(way, &frame, &mut streams);
        }
        // An unfinished DATA frame counts too: its bytes did arrive.
        if let Some(head) = bytes.first_chunk::<9>()
            && head[3] == DATA
        {
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let call = &mut receipts.calls[streams[&stream]];
            call.data.extend_from_slice(&bytes[9..]);
        }
        receipts
    }

    fn add(&mut self, way: Way, frame: &Frame, streams: &mut BTreeMap<u32, usize>) {
        let is_last = frame.flags & END_STREAM != 0;
        match (frame.kind, streams.get(&frame.stream)) {
            (HEADERS, None) => {
                let fields = fields(frame.payload);
                let Some(call) = fields.get("x-call").cloned() else {
                    assert_eq!(fields["grpc-status"], "14", "only attestry's own answers name no call");
                    return self.refusals.push(fields["grpc-message"].clone());
                };
                streams.insert(frame.stream, self.calls.len());
                self.calls.push(Receipt { call, way, data: Vec::new(), ended: is_last, cancelled: false });
            }
            (HEADERS, Some(&at)) => {
                assert_eq!(fields(frame.payload)["x-end"], self.calls[at].call, "trailers of another call");
                self.calls[at].ended = true;
            }
            (DATA, Some(&at)) => {
                self.calls[at].data.extend_from_slice(frame.payload);
                self.calls[at].ended |= is_last;
            }
            (RST_STREAM, Some(&at)) if way == Way::Request => self.calls[at].cancelled = true,
            (RST_STREAM, _) => self.resets += 1,
            (DATA, None) => panic!("DATA without headers on stream {}", frame.stream),
            _ => {}
        }
    }
}

/// A connection's bytes as they were read.
type Kept = Arc<Mutex<Vec<u8>>>;

/// The connections of a server, each with the thread that serves it.
type Connections = Arc<Mutex<Vec<(JoinHandle<()>, Kept)>>>;

/// Reads until the end, whatever ends it; `keep` has all bytes before `each` sees a frame of them.
pub(crate) fn read_all(mut socket: &TcpStream, mut keep: impl FnMut(&[u8]), mut each: impl FnMut(&Frame)) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut pending, mut has_begun) = (Vec::new(), false);
    while let Ok(length @ 1..) = socket.read(&mut buffer) {
        keep(&buffer[..length]);
        pending.extend_from_slice(&buffer[..length]);
        if !has_begun && pending[0] == PREFACE[0] {
            if pending.len() < PREFACE.len() {
                continue;
            }
            pending.drain(..PREFACE.len());
        }
        has_begun = true;
        let mut rest = &pending[..];
        while let Some(frame) = next_frame(&mut rest) {
            each(&frame);
        }
        let done = pending.len() - rest.len();
        pending.drain(..done);
    }
}

/// A server that sends each DATA frame back as `answer` turns it, and a trailer at the end.
pub(crate) struct EchoServer {
    pub(crate) addr: SocketAddr,
    connections: Connections,
}

impl EchoServer {
    /// Listens on a free port for as long as the test runs.
    pub(crate) fn start(answer: fn(&[u8]) -> Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Connections::default();
        let sink = Arc::clone(&connections);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, kept) = (socket.unwrap(), Kept::default());
                let also_kept = Arc::clone(&kept);
                let thread = thread::spawn(move || echo(&socket, &also_kept, answer));
                sink.lock().unwrap().push((thread, kept));
            }
        });
        Self { addr, connections }
    }

    /// What all connections so far brought; waits for their ends.
    pub(crate) fn take(&self) -> Vec<Receipts> {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections
            .into_iter()
            .map(|(thread, kept)| {
                thread.join().unwrap();
                Receipts::of(Way::Request, &kept.lock().unwrap())
            })
            .collect()
    }
}

fn echo(socket: &TcpStream, kept: &Kept, answer: fn(&[u8]) -> Vec<u8>) {
    socket.set_nodelay(true).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut calls = BTreeMap::new();
    // A write that fails is a connection that ends: the next read says so.
    let say = |bytes: &[u8]| drop((&mut &*socket).write_all(bytes));
    say(&greeting());
    let keep = |bytes: &[u8]| kept.lock().unwrap().extend_from_slice(bytes);
    read_all(socket, keep, |frame| {
        let stream = frame.stream;
        match frame.kind {
            HEADERS => {
                let call = fields(frame.payload)["x-call"].clone();
                say(&begin_response(stream, &call));
                calls.insert(stream, call);
            }
            DATA if calls.contains_key(&stream) => {
                let mut bytes = Vec::new();
                if !frame.payload.is_empty() {
                    bytes.extend(data(stream, &answer(frame.payload), false));
                }
                if frame.flags & END_STREAM != 0 {
                    let call = calls.remove(&stream).unwrap();
                    bytes.extend(end_response(stream, &call));
                }
                say(&bytes);
            }
            RST_STREAM => drop(calls.remove(&stream)),
            SETTINGS if frame.flags & ACK == 0 => say(&self::frame(SETTINGS, ACK, 0, &[])),
            PING if frame.flags & ACK == 0 => say(&self::frame(PING, ACK, 0, frame.payload)),
            _ => {}
        }
    });
}

/// How far a client's conversation is.
#[derive(Default)]
struct Progress {
    greeted: bool,
    ended_calls: usize,
    refusals: usize,
    is_over: bool,
}

/// A client's connection.
pub(crate) struct Client {
    socket: Arc<TcpStream>,
    kept: Kept,
    progress: Arc<(Mutex<Progress>, Condvar)>,
    reader: JoinHandle<()>,
}

impl Client {
    /// Connects, and waits for the server's greeting. `None` where the connection ends before it.
    pub(crate) fn connect(addr: SocketAddr) -> Option<Self> {
        let socket = Arc::new(TcpStream::connect(addr).ok()?);
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let (kept, progress) = (Kept::default(), Arc::<(Mutex<Progress>, Condvar)>::default());
        let (from, keep, tell) = (Arc::clone(&socket), Arc::clone(&kept), Arc::clone(&progress));
        let reader = thread::spawn(move || {
            let change = |change: &mut dyn FnMut(&mut Progress)| {
                change(&mut tell.0.lock().unwrap());
                tell.1.notify_all();
            };
            let keep = |bytes: &[u8]| keep.lock().unwrap().extend_from_slice(bytes);
            read_all(&from, keep, |frame| {
                change(&mut |progress| match frame.kind {
                    SETTINGS => progress.greeted = true,
                    HEADERS if frame.flags & END_STREAM != 0 => {
                        progress.ended_calls += 1;
                        let is_refusal = !fields(frame.payload).contains_key("x-end");
                        progress.refusals += usize::from(is_refusal);
                    }
                    // The server never resets a stream, so attestry has.
                    RST_STREAM => progress.refusals += 1,
                    _ => {}
                });
            });
            change(&mut |progress| progress.is_over = true);
        });
        let client = Self { socket, kept, progress, reader };
        let _ = client.write(&[PREFACE, &greeting()].concat());
        client.wait(|progress| progress.greeted).then_some(client)
    }

    /// Writes; false where the connection takes no more.
    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        (&*self.socket).write_all(bytes).is_ok()
    }

    /// Waits until that many calls have ended; false where the connection ended first.
    pub(crate) fn wait_for_ended_calls(&self, calls: usize) -> bool {
        self.wait(|progress| progress.ended_calls >= calls)
    }

    /// Waits until more than `ended` calls have ended or one was refused; false where the connection ended first.
    pub(crate) fn wait_for_progress(&self, ended: usize) -> bool {
        self.wait(|progress| progress.ended_calls > ended || progress.refusals > 0)
    }

    /// Waits until attestry has answered or reset a call itself; false where the connection ended first.
    pub(crate) fn wait_for_refusal(&self) -> bool {
        self.wait(|progress| progress.refusals > 0)
    }

    /// Waits for the connection's end, which something else must bring about; returns what it brought.
    pub(crate) fn finish(self) -> Receipts {
        self.reader.join().unwrap();
        Receipts::of(Way::Response, &self.kept.lock().unwrap())
    }

    /// Says that nothing more will be asked.
    pub(crate) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Calls that have ended, and those that attestry has refused.
    pub(crate) fn so_far(&self) -> (usize, usize) {
        let progress = self.progress.0.lock().unwrap();
        (progress.ended_calls, progress.refusals)
    }

    fn wait(&self, until: impl Fn(&Progress) -> bool) -> bool {
        let (progress, changed) = &*self.progress;
        let guard = progress.lock().unwrap();
        let waiting = |progress: &mut Progress| !progress.is_over && !until(progress);
        let (progress, timeout) = changed.wait_timeout_while(guard, PATIENCE, waiting).unwrap();
        assert!(!timeout.timed_out(), "nothing more came within {PATIENCE:?}");
        until(&progress)
    }
}
