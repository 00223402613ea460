//! A server that misbehaves as gRPC's negative interop suite wants it (grpc/grpc, doc/http2-interop-test-descriptions.md):
//! raw frames over blocking sockets, one thread per connection, what it does chosen by the method that is called.
//!
//! It keeps to the client's windows and reads requests of one message in one header block, which is all that the clients
//! send. What it saw of its clients is told by `Misbehaving::faults`.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use prost::Message as _;
use serde_json::json;

use super::cases::{Case, call, digest, many, payload};
use super::generated as pb;
use crate::frames::{self, Frame, PREFACE, code, flag, kind, setting};
use crate::hpack::{Decoder, literal};

pub(super) const SERVICE: &str = "/attestry.interop.v1.Misbehaving/";
const RESPONSE_BYTES: usize = 314_159;
/// As in the suite: five bytes of content in each DATA frame.
const PIECE_BYTES: usize = 5;
const PADDING_BYTES: u8 = 255;
const DATA_FRAME_BYTES: usize = 16_384;
const PINGS: usize = 4;
const CONCURRENT_CALLS: usize = 10;
/// How long answers are held back for a call too many to come in.
const HOLD: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// The cases in their order: a limit of streams stays for the rest of a connection, so `max_streams` comes last.
pub(super) fn cases() -> Vec<Case> {
    let large = || json!({"payload_size": 10, "response_size": RESPONSE_BYTES});
    let served = json!({"code": 0, "bytes": RESPONSE_BYTES, "sha256": digest(0, 0..1, RESPONSE_BYTES)});
    let cut = || json!({"messages": 0, "code_is_an_error": true});
    // Some libraries hand the message out all the same, and the error behind it.
    let cut_after_message = json!({"code_is_an_error": true});
    let misbehaving = |name: &'static str, case: Case| {
        let mut case = case.of_suite(name);
        case.spec["path"] = json!(format!("{SERVICE}{name}"));
        case
    };
    let one = |name: &'static str| misbehaving(name, call(name, "unary", json!({}), large()));
    vec![
        one("data_frame_padding").must(served.clone()),
        one("no_df_padding_sanity_test").must(served.clone()),
        one("ping").must(served),
        one("rst_after_header").must(cut()),
        one("rst_during_data").must(cut()),
        one("rst_after_data").must(cut_after_message),
        misbehaving("goaway", many("goaway", "soak", 2, large(), RESPONSE_BYTES)),
        misbehaving("max_streams", call("max_streams_first", "unary", json!({}), large())),
        misbehaving(
            "max_streams",
            many("max_streams", "concurrent", CONCURRENT_CALLS, large(), RESPONSE_BYTES),
        ),
    ]
}

/// A running server; its threads end with the process.
pub(super) struct Misbehaving {
    pub(super) addr: SocketAddr,
    seen: Arc<Seen>,
}

/// What the server saw of its clients.
#[derive(Default)]
struct Seen {
    facts: Mutex<Facts>,
    changed: Condvar,
}

#[derive(Default)]
struct Facts {
    connections: u32,
    /// The connections on which `goaway` was called, one for each call.
    goaway_on: Vec<u32>,
    pings_sent: BTreeSet<[u8; 8]>,
    pings_answered: BTreeSet<[u8; 8]>,
    streams_at_once_max: usize,
}

impl Misbehaving {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let for_connections = Arc::clone(&seen);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let number = for_connections.note(|facts| facts.connections += 1).connections;
                let seen = Arc::clone(&for_connections);
                // A connection ends as its client ends it, in whatever way.
                thread::spawn(move || drop(Connection::new(socket, number, seen).serve()));
            }
        });
        Self { addr, seen }
    }

    /// What the clients should have done and did not, once all cases were played.
    pub(super) fn faults(&self) -> Vec<String> {
        let all_answered =
            |facts: &mut Facts| facts.pings_sent.len() < PINGS || facts.pings_answered != facts.pings_sent;
        let facts = self.seen.facts.lock().unwrap();
        let (facts, _) = self.seen.changed.wait_timeout_while(facts, PATIENCE, all_answered).unwrap();
        let mut faults = Vec::new();
        if facts.pings_sent.len() != PINGS || facts.pings_answered != facts.pings_sent {
            faults.push(format!("ping: {:?} sent, {:?} answered", facts.pings_sent, facts.pings_answered));
        }
        if facts.goaway_on.len() != 2 || facts.goaway_on[0] == facts.goaway_on[1] {
            faults.push(format!("goaway: the two calls came on the connections {:?}", facts.goaway_on));
        }
        if facts.streams_at_once_max != 1 {
            faults.push(format!("max_streams: {} streams at once, 1 was allowed", facts.streams_at_once_max));
        }
        faults
    }
}

impl Seen {
    fn note(&self, change: impl FnOnce(&mut Facts)) -> std::sync::MutexGuard<'_, Facts> {
        let mut facts = self.facts.lock().unwrap();
        change(&mut facts);
        self.changed.notify_all();
        facts
    }
}

/// A request that is coming in.
struct Call {
    stream: u32,
    case: String,
    body: Vec<u8>,
    is_whole: bool,
}

struct Connection {
    socket: TcpStream,
    number: u32,
    seen: Arc<Seen>,
    fields: Decoder,
    calls: Vec<Call>,
    /// Frames in their order, each with what it costs of the windows and on which stream.
    out: VecDeque<(Vec<u8>, u32, i64)>,
    /// What is left of the connection's window.
    shared_window: i64,
    initial_window: i64,
    /// What each stream has used of its window, less what the client has added to it.
    used: std::collections::BTreeMap<u32, i64>,
    limits_streams: bool,
}

impl Connection {
    fn new(socket: TcpStream, number: u32, seen: Arc<Seen>) -> Self {
        Self {
            socket,
            number,
            seen,
            fields: Decoder::new(),
            calls: Vec::new(),
            out: VecDeque::new(),
            shared_window: 65_535,
            initial_window: 65_535,
            used: std::collections::BTreeMap::new(),
            limits_streams: false,
        }
    }

    fn serve(mut self) -> std::io::Result<()> {
        self.socket.set_nodelay(true)?;
        let mut preface = [0; PREFACE.len()];
        self.socket.read_exact(&mut preface)?;
        self.socket.write_all(&frames::settings(&[]))?;
        let (mut buffered, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            while let Some(frame) = Frame::parse(&buffered) {
                buffered.drain(..frame.wire_len());
                self.take(&frame);
            }
            if !self.limits_streams {
                self.answer_whole_calls();
            }
            self.write()?;
            let held_back = self.calls.iter().any(|call| call.is_whole);
            self.socket.set_read_timeout(held_back.then_some(HOLD))?;
            match self.socket.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => buffered.extend(&piece[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.answer_whole_calls();
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, frame: &Frame) {
        let stream = frame.stream();
        match frame.kind() {
            kind::HEADERS => {
                let block = frame.fragment().unwrap_or_default();
                let fields = self.fields.decode(block).unwrap_or_default();
                let path = fields.iter().find(|(name, _)| name == b":path").map(|(_, path)| path.clone());
                let path = String::from_utf8(path.unwrap_or_default()).unwrap_or_default();
                let case = path.strip_prefix(SERVICE).unwrap_or_default().to_owned();
                self.calls.push(Call { stream, case, body: Vec::new(), is_whole: false });
                self.note_streams();
            }
            kind::DATA => self.take_data(frame),
            kind::SETTINGS if !frame.has(flag::ACK) => self.take_settings(&frame.payload),
            kind::PING if frame.has(flag::ACK) => {
                let opaque: [u8; 8] = frame.payload.clone().try_into().unwrap_or_default();
                drop(self.seen.note(|facts| facts.pings_answered.extend([opaque])));
            }
            kind::PING => {
                let opaque: [u8; 8] = frame.payload.clone().try_into().unwrap_or_default();
                self.out.push_back((frames::ping(flag::ACK, opaque), 0, 0));
            }
            kind::WINDOW_UPDATE => {
                let increment = number(&frame.payload);
                if stream == 0 {
                    self.shared_window += increment;
                } else {
                    *self.used.entry(stream).or_default() -= increment;
                }
            }
            kind::RST_STREAM => {
                self.calls.retain(|call| call.stream != stream);
                self.out.retain(|(_, of, _)| *of != stream);
            }
            _ => {}
        }
    }

    fn take_data(&mut self, frame: &Frame) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.stream == frame.stream()) {
            call.body.extend(&frame.payload);
            call.is_whole = frame.has(flag::END_STREAM);
        }
    }

    fn take_settings(&mut self, parameters: &[u8]) {
        for parameter in parameters.chunks_exact(6) {
            if u16::from_be_bytes([parameter[0], parameter[1]]) == setting::INITIAL_WINDOW_SIZE {
                self.initial_window = number(&parameter[2..]);
            }
        }
        self.out.push_back((frames::settings_ack(), 0, 0));
    }

    fn note_streams(&self) {
        if self.limits_streams {
            let open = self.calls.len();
            drop(self.seen.note(|facts| facts.streams_at_once_max = facts.streams_at_once_max.max(open)));
        }
    }

    fn answer_whole_calls(&mut self) {
        for call in std::mem::take(&mut self.calls) {
            if call.is_whole {
                self.answer(&call);
            } else {
                self.calls.push(call);
            }
        }
    }

    fn answer(&mut self, call: &Call) {
        let plan =
            call.body.get(5..).and_then(|message| pb::Request::decode(message).ok()).unwrap_or_default();
        let content = payload(plan.seed as usize, 0, plan.response_size as usize);
        let answer = pb::Response { payload: content, ..pb::Response::default() }.encode_to_vec();
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        let message = [&[0], &length[..], &answer].concat();
        let stream = call.stream;
        match call.case.as_str() {
            "data_frame_padding" => self.whole_answer(stream, &message, PIECE_BYTES, Some(PADDING_BYTES)),
            "no_df_padding_sanity_test" => self.whole_answer(stream, &message, PIECE_BYTES, None),
            "rst_after_header" => self.cut_answer(stream, &[]),
            "rst_during_data" => self.cut_answer(stream, &message[..message.len() / 2]),
            "rst_after_data" => self.cut_answer(stream, &message),
            "ping" => self.answer_among_pings(stream, &message),
            "goaway" => {
                drop(self.seen.note(|facts| facts.goaway_on.push(self.number)));
                self.headers(stream);
                self.data(stream, &message, DATA_FRAME_BYTES, None);
                // Before the call's end, so that the client knows it when it makes the next call.
                self.out.push_back((frames::goaway(stream, code::NO_ERROR, b""), 0, 0));
                self.trailers(stream);
            }
            "max_streams" => {
                if !self.limits_streams {
                    self.limits_streams = true;
                    self.out.push_back((frames::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]), 0, 0));
                }
                self.whole_answer(stream, &message, DATA_FRAME_BYTES, None);
            }
            _ => self.out.push_back((frames::rst_stream(stream, code::INTERNAL_ERROR), 0, 0)),
        }
    }

    fn whole_answer(&mut self, stream: u32, message: &[u8], piece_bytes: usize, padding: Option<u8>) {
        self.headers(stream);
        self.data(stream, message, piece_bytes, padding);
        self.trailers(stream);
    }

    fn cut_answer(&mut self, stream: u32, part: &[u8]) {
        self.headers(stream);
        self.data(stream, part, DATA_FRAME_BYTES, None);
        self.out.push_back((frames::rst_stream(stream, code::NO_ERROR), stream, 0));
    }

    fn answer_among_pings(&mut self, stream: u32, message: &[u8]) {
        self.ping(1);
        self.headers(stream);
        self.ping(2);
        self.data(stream, message, DATA_FRAME_BYTES, None);
        self.ping(3);
        self.trailers(stream);
        self.ping(4);
    }

    fn ping(&mut self, number: u8) {
        let opaque = [number, 0xa5, 0, 0xff, 1, 2, 3, number];
        drop(self.seen.note(|facts| facts.pings_sent.extend([opaque])));
        self.out.push_back((frames::ping(flag::NONE, opaque), 0, 0));
    }

    fn headers(&mut self, stream: u32) {
        let block = [literal(":status", "200"), literal("content-type", "application/grpc")].concat();
        self.out.push_back((frames::headers(stream, flag::NONE, &block), stream, 0));
    }

    fn trailers(&mut self, stream: u32) {
        let block = literal("grpc-status", "0");
        self.out.push_back((frames::headers(stream, flag::END_STREAM, &block), stream, 0));
    }

    fn data(&mut self, stream: u32, content: &[u8], piece_bytes: usize, padding: Option<u8>) {
        for piece in content.chunks(piece_bytes) {
            let (flags, piece) = match padding {
                Some(padding) => (flag::PADDED, frames::padded(padding, piece)),
                None => (flag::NONE, piece.to_vec()),
            };
            let cost = i64::try_from(piece.len()).unwrap();
            self.out.push_back((frames::data(stream, flags, &piece), stream, cost));
        }
    }

    /// Writes what the windows allow.
    fn write(&mut self) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        while let Some((frame, stream, cost)) = self.out.front() {
            let used = self.used.entry(*stream).or_default();
            if *cost > 0 && (*cost > self.shared_window || *used + *cost > self.initial_window) {
                break;
            }
            *used += cost;
            self.shared_window -= cost;
            bytes.extend(frame);
            self.out.pop_front();
        }
        self.socket.write_all(&bytes)
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | i64::from(*byte))
}
