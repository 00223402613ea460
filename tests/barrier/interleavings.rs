//! Random conversations over the relay: frames of several streams in any order, written in pieces of any size, receipts at any time and in any order.
//!
//! What the ledger has is computed from the entries of the answered submissions alone, frame by frame and byte by byte, not from what the relay says
//! it holds: a frame may only arrive once the evidence of everything in it, and in all frames before it, has been given its receipt.

use crate::frames::{self, Frame, PREFACE, code, flag, kind};
use crate::holding_port::Held;
use crate::hpack;
use crate::rig::{PATIENCE, Rig, Watch, Way, frames_of};
use attestry::entry::{Body, CommitError, PieceKind, Receipt, pieces};
use attestry::generated::v1::{Direction, EventType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Streams that the client opens before anything else.
const STREAMS: u32 = 4;

const HOLD_BYTES_MAX: usize = 16 << 20;

/// A step of one side. Streams are chosen among those on which the side may still send; where there is none, the step is left out.
#[derive(Clone, Debug)]
enum Step {
    Data {
        stream: usize,
        length: usize,
        pad: Option<u8>,
        ends: bool,
    },
    /// On the server's side the first block of a stream is the response's; further ones are trailers.
    Block {
        stream: usize,
        pad: Option<u8>,
        parts: usize,
        ends: bool,
    },
    Reset {
        stream: usize,
    },
    Ping,
    Window {
        stream: usize,
    },
    Settings,
    Priority {
        stream: usize,
    },
    Unknown {
        length: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS as usize;
    let pad = || prop_oneof![3 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let length = prop_oneof![4 => 0..40_usize, 3 => 0..3_000_usize, 1 => 0..16_000_usize];
    prop_oneof![
        8 => (stream.clone(), length, pad(), prop::bool::weighted(0.1))
            .prop_map(|(stream, length, pad, ends)| Step::Data { stream, length, pad, ends }),
        3 => (stream.clone(), pad(), 1..5_usize, prop::bool::weighted(0.3))
            .prop_map(|(stream, pad, parts, ends)| Step::Block { stream, pad, parts, ends }),
        1 => stream.clone().prop_map(|stream| Step::Reset { stream }),
        2 => Just(Step::Ping),
        1 => stream.clone().prop_map(|stream| Step::Window { stream }),
        1 => Just(Step::Settings),
        1 => stream.prop_map(|stream| Step::Priority { stream }),
        1 => (0..50_usize).prop_map(|length| Step::Unknown { length }),
    ]
}

#[derive(Clone, Debug)]
struct Script {
    client: Vec<Step>,
    server: Vec<Step>,
    /// Lengths of single writes, used in turn.
    writes: Vec<usize>,
    seed: u64,
    /// After so many receipts everything is refused.
    refused_after: Option<usize>,
}

fn script(refused_after: impl Strategy<Value = Option<usize>>) -> impl Strategy<Value = Script> {
    let writes = vec(prop_oneof![2 => 1..30_usize, 2 => 30..1_500_usize, 1 => 1_500..40_000_usize], 1..8);
    (vec(step(), 0..40), vec(step(), 0..40), writes, any::<u64>(), refused_after).prop_map(
        |(client, server, writes, seed, refused_after)| Script {
            client,
            server,
            writes,
            seed,
            refused_after,
        },
    )
}

fn config(cases: u32) -> Config {
    // A failure is a race as often as not, and shrinking one leads nowhere.
    Config { cases, max_shrink_iters: 4, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn what_comes_out_is_what_went_in_and_never_before_its_receipt(script in script(Just(None))) {
        play(&script);
    }
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn after_a_refusal_nothing_goes_upstream_and_every_open_call_is_ended(script in script((1..30_usize).prop_map(Some))) {
        play(&script);
    }
}

/// What a frame says that must be in the ledger before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Evidence {
    /// A header block, by the number that its last field bears.
    Block(u32, String),
    Data(u32, Vec<u8>),
    /// An empty DATA frame that ends a stream.
    Close(u32),
    Reset(u32),
    /// A frame of an unknown type, by its payload.
    Stray(Vec<u8>),
}

/// One unit of the wire: bytes, and what they say.
#[derive(Clone, Debug)]
struct Unit {
    bytes: Vec<u8>,
    evidence: Option<Evidence>,
    /// Whether the stream is over for the other side after it.
    ends: Option<u32>,
}

/// Writes one side's frames down.
struct Author {
    way: Way,
    units: Vec<Unit>,
    /// Streams on which this side may send.
    open: Vec<u32>,
    /// Streams whose response has begun.
    responded: BTreeSet<u32>,
    reset: BTreeSet<u32>,
    number: u32,
}

impl Author {
    fn new(way: Way) -> Self {
        let open = (0..STREAMS).map(|number| 2 * number + 1).collect();
        Self { way, units: Vec::new(), open, responded: BTreeSet::new(), reset: BTreeSet::new(), number: 0 }
    }

    fn plain(&mut self, bytes: Vec<u8>) {
        self.units.push(Unit { bytes, evidence: None, ends: None });
    }

    fn opening(&mut self) {
        if self.way == Way::Up {
            self.plain(PREFACE.to_vec());
            self.plain(frames::settings(&[]));
            // Some are gRPC, some are not: those are recorded in another way.
            for stream in self.open.clone() {
                let kind = if stream % 4 == 1 { "application/grpc" } else { "text/plain" };
                let request = [
                    hpack::indexed(hpack::at::POST),
                    hpack::literal_at(hpack::at::PATH, "/a/B"),
                    hpack::keep("content-type", kind),
                ];
                self.block(stream, &request.concat(), None, 2, false);
            }
        } else {
            self.plain(frames::settings(&[]));
        }
    }

    fn write(&mut self, step: &Step) {
        let stream_of = |index: usize| self.open.get(index % self.open.len().max(1)).copied();
        match *step {
            Step::Data { stream, length, pad, ends } => {
                let Some(stream) = stream_of(stream) else { return };
                if self.way == Way::Up || self.responded.contains(&stream) {
                    self.data(stream, length, pad, ends);
                }
            }
            Step::Block { stream, pad, parts, ends } => {
                let Some(stream) = stream_of(stream) else { return };
                let is_response = self.way == Way::Down && self.responded.insert(stream);
                let fields = if is_response {
                    [hpack::indexed(hpack::at::STATUS), hpack::keep("content-type", "application/grpc")]
                        .concat()
                } else {
                    hpack::literal("grpc-status", "0")
                };
                // A second block is trailers, and trailers end a stream.
                self.block(stream, &fields, pad, parts, ends || !is_response);
            }
            Step::Reset { stream } => {
                let Some(stream) = stream_of(stream) else { return };
                self.open.retain(|&open| open != stream);
                self.reset.insert(stream);
                let bytes = frames::rst_stream(stream, code::CANCEL);
                self.units.push(Unit { bytes, evidence: Some(Evidence::Reset(stream)), ends: Some(stream) });
            }
            Step::Ping => self.plain(frames::ping(flag::NONE, *b"pingping")),
            Step::Window { stream } => {
                let stream = stream_of(stream).unwrap_or_default();
                self.plain(frames::window_update(stream, 1_000));
            }
            Step::Settings => self.plain(frames::settings(&[(0x99, 7)])),
            Step::Priority { stream } => {
                let Some(stream) = stream_of(stream) else { return };
                self.plain(frames::frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 9]));
            }
            Step::Unknown { length } => {
                let payload = self.noise(length);
                let bytes = frames::frame(0xcc, 0, 0, &payload);
                self.units.push(Unit { bytes, evidence: Some(Evidence::Stray(payload)), ends: None });
            }
        }
    }

    fn data(&mut self, stream: u32, length: usize, pad: Option<u8>, ends: bool) {
        let content = self.noise(length);
        let (flags, payload) = padded(pad, content.clone());
        let end_flag = if ends { flag::END_STREAM } else { 0 };
        let evidence = match (length, ends) {
            (0, false) => None,
            (0, true) => Some(Evidence::Close(stream)),
            _ => Some(Evidence::Data(stream, content)),
        };
        let bytes = frames::data(stream, flags | end_flag, &payload);
        self.finish(stream, Unit { bytes, evidence, ends: ends.then_some(stream) });
    }

    /// A header block in `parts` frames, with a numbered field at its end.
    fn block(&mut self, stream: u32, fields: &[u8], pad: Option<u8>, parts: usize, ends: bool) {
        self.number += 1;
        let number = format!("{:?}-{}", self.way, self.number);
        let block = [fields.to_vec(), hpack::literal("x-number", &number)].concat();
        let mut fragments: VecDeque<&[u8]> = block.chunks(block.len().div_ceil(parts)).collect();
        let first = fragments.pop_front().unwrap();
        let end_of = |rest: &VecDeque<&[u8]>| if rest.is_empty() { flag::END_HEADERS } else { 0 };
        let (flags, payload) = padded(pad, first.to_vec());
        let end_flag = if ends { flag::END_STREAM } else { 0 };
        let mut bytes = frames::frame(kind::HEADERS, flags | end_flag | end_of(&fragments), stream, &payload);
        while let Some(fragment) = fragments.pop_front() {
            bytes.extend(frames::frame(kind::CONTINUATION, end_of(&fragments), stream, fragment));
        }
        let evidence = Some(Evidence::Block(stream, number));
        self.finish(stream, Unit { bytes, evidence, ends: ends.then_some(stream) });
    }

    fn finish(&mut self, stream: u32, unit: Unit) {
        if unit.ends.is_some() {
            self.open.retain(|&open| open != stream);
        }
        self.units.push(unit);
    }

    /// Bytes that differ from place to place, so that a swap shows.
    fn noise(&mut self, length: usize) -> Vec<u8> {
        self.number += 1;
        let mut state = u64::from(self.number) * 2 + u64::from(self.way == Way::Up);
        (0..length).map(|_| u8::try_from(next(&mut state) % 256).unwrap()).collect()
    }
}

fn padded(pad: Option<u8>, content: Vec<u8>) -> (u8, Vec<u8>) {
    match pad {
        None => (0, content),
        Some(pad) => (flag::PADDED, frames::padded(pad, &content)),
    }
}

/// xorshift64: cheap, and the same for the same seed.
fn next(state: &mut u64) -> u64 {
    *state = (*state ^ 0x9e37_79b9_7f4a_7c15).max(1);
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// What the ledger has of one direction, and how far that lets the wire go.
struct Progress {
    units: VecDeque<Unit>,
    data: BTreeMap<u32, VecDeque<u8>>,
    blocks: BTreeMap<u32, VecDeque<String>>,
    closes: BTreeMap<u32, usize>,
    resets: BTreeMap<u32, usize>,
    strays: VecDeque<Vec<u8>>,
    /// Bytes that may have arrived.
    allowed: Arc<AtomicUsize>,
    /// The first submission of this direction that has no receipt, as a number among all.
    next: usize,
}

impl Progress {
    fn new(units: Vec<Unit>, allowed: Arc<AtomicUsize>) -> Self {
        let (data, blocks, closes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (resets, strays) = (BTreeMap::new(), VecDeque::new());
        Self { units: units.into(), data, blocks, closes, resets, strays, allowed, next: 0 }
    }

    /// Takes in the submissions of this direction up to the first that `given` does not name.
    fn advance(&mut self, direction: Direction, held: &[Held], given: &BTreeSet<usize>) {
        while let Some(submission) = held.get(self.next) {
            if submission.direction() == Some(direction) {
                if !given.contains(&self.next) {
                    break;
                }
                submission.entries.iter().for_each(|(body, payload)| self.take(body, payload));
            }
            self.next += 1;
        }
        while self.units.front().is_some_and(|unit| unit.evidence.is_none()) || self.covers_next() {
            let unit = self.units.pop_front().unwrap();
            self.allowed.fetch_add(unit.bytes.len(), Ordering::SeqCst);
        }
    }

    fn take(&mut self, body: &Body, payload: &[u8]) {
        let mut rest = payload;
        let mut parts = BTreeMap::new();
        for piece in pieces(body) {
            let (bytes, behind) = rest.split_at(usize::try_from(piece.length).unwrap());
            rest = behind;
            match piece.kind {
                PieceKind::Segment(event, _) => drop(parts.insert(event, bytes)),
                PieceKind::Connection(_, event) if event.frame_type == 0xcc => {
                    self.strays.push_back(bytes.to_vec());
                }
                _ => panic!("no such piece was sent: {piece:?}"),
            }
        }
        assert!(rest.is_empty(), "payload that no event names");
        match body {
            Body::CallEvents(call) => {
                for (number, event) in call.events.iter().enumerate() {
                    if let Some(header) = &event.header {
                        let numbered = header.fields.iter().find(|field| field.name == "x-number").unwrap();
                        let number = String::from_utf8(numbered.value.to_vec()).unwrap();
                        self.blocks.entry(call.stream).or_default().push_back(number);
                    }
                    if let Some(message) = &event.message {
                        let data = self.data.entry(call.stream).or_default();
                        data.extend(
                            message.prefix.iter().chain(parts.get(&number).copied().unwrap_or_default()),
                        );
                    }
                    match event.r#type() {
                        EventType::ClientHalfClose | EventType::ServerHalfClose => {
                            *self.closes.entry(call.stream).or_default() += 1;
                        }
                        EventType::Cancel | EventType::Reset => {
                            *self.resets.entry(call.stream).or_default() += 1;
                        }
                        _ => {}
                    }
                }
            }
            Body::ConnectionEvents(connection) => {
                // An unknown frame without payload is recorded too, with nothing beside it.
                let empty = connection
                    .events
                    .iter()
                    .filter(|event| event.frame_type == 0xcc && event.payload_length == 0);
                empty.for_each(|_| self.strays.push_back(Vec::new()));
            }
            other => panic!("no entry of a direction: {other:?}"),
        }
    }

    /// Whether the evidence covers the next unit, which it then is spent on.
    fn covers_next(&mut self) -> bool {
        let Some(evidence) = self.units.front().and_then(|unit| unit.evidence.clone()) else { return false };
        match evidence {
            Evidence::Block(stream, number) => {
                let Some(found) = self.blocks.entry(stream).or_default().pop_front() else { return false };
                assert_eq!(found, number, "another block is recorded than was sent");
                true
            }
            Evidence::Data(stream, content) => {
                let data = self.data.entry(stream).or_default();
                if data.len() < content.len() {
                    return false;
                }
                assert!(data.drain(..content.len()).eq(content), "other bytes are recorded than were sent");
                true
            }
            Evidence::Close(stream) => take_one(&mut self.closes, stream),
            Evidence::Reset(stream) => take_one(&mut self.resets, stream),
            Evidence::Stray(content) => {
                let at = self.strays.iter().position(|found| *found == content);
                at.map(|at| self.strays.remove(at)).is_some()
            }
        }
    }
}

fn take_one(counts: &mut BTreeMap<u32, usize>, stream: u32) -> bool {
    let count = counts.entry(stream).or_default();
    let there = *count > 0;
    *count -= usize::from(there);
    there
}

/// Both directions' progress, and which submissions were given their receipt.
struct Given {
    up: Progress,
    down: Progress,
    numbers: BTreeSet<usize>,
}

impl Given {
    fn note(&mut self, number: usize, held: &[Held]) {
        self.numbers.insert(number);
        self.up.advance(Direction::ClientToServer, held, &self.numbers);
        self.down.advance(Direction::ServerToClient, held, &self.numbers);
    }
}

fn play(script: &Script) {
    let (mut client, mut server) = (Author::new(Way::Up), Author::new(Way::Down));
    client.opening();
    server.opening();
    let opening: usize = client.units.iter().map(|unit| unit.bytes.len()).sum();
    script.client.iter().for_each(|step| client.write(step));
    script.server.iter().for_each(|step| server.write(step));

    let allowed = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let [up, down] = allowed.clone();
    let given = Given {
        up: Progress::new(client.units.clone(), up),
        down: Progress::new(server.units.clone(), down),
        numbers: BTreeSet::new(),
    };
    let is_refusing = Arc::new(AtomicBool::new(false));
    let rig = Rig::watched(HOLD_BYTES_MAX, &watch(allowed.clone(), Arc::clone(&is_refusing)));
    let receipts = Giver::start(&rig, script, given, Arc::clone(&is_refusing));

    let [to_server, to_client] = [&client, &server].map(|author| bytes_of(&author.units));
    write_in_pieces(&mut rig.writer(Way::Up), &to_server[..opening], &script.writes);
    // The server answers what it has been asked; what it says of calls that nobody has made would be recorded as stray.
    let opened = |held: &[Held]| is_refusing.load(Ordering::SeqCst) || blocks_seen(held) == STREAMS as usize;
    assert!(rig.port.wait(PATIENCE, opened), "the requests are not seen");
    let (mut up, mut down) = (rig.writer(Way::Up), rig.writer(Way::Down));
    thread::scope(|scope| {
        scope.spawn(|| write_in_pieces(&mut up, &to_server[opening..], &script.writes));
        scope.spawn(|| write_in_pieces(&mut down, &to_client, &script.writes));
    });
    if script.refused_after.is_none() {
        let [upstream, downstream] = [(Way::Up, &to_server), (Way::Down, &to_client)].map(|(way, sent)| {
            let received = rig.wait_for(way, |bytes| bytes.len() >= sent.len());
            received == *sent
        });
        assert!(upstream && downstream, "other bytes came out: up {upstream}, down {downstream}");
    } else {
        wait_for_refusal(&rig, &is_refusing, &to_server, &to_client);
        if is_refusing.load(Ordering::SeqCst) {
            assert_refused(&rig, &client, &server, &allowed);
        }
    }
    receipts.stop();
    rig.end();
}

/// Everything that arrives must be allowed by then. A local answer to the client is no frame of the server's, so once refusals have
/// begun only what goes upstream is watched here.
fn watch(allowed: [Arc<AtomicUsize>; 2], is_refusing: Arc<AtomicBool>) -> Watch {
    Arc::new(move |way, received| {
        let allowed = allowed[way as usize].load(Ordering::SeqCst);
        let is_free = way == Way::Down && is_refusing.load(Ordering::SeqCst);
        assert!(
            is_free || received.len() <= allowed,
            "{way:?}: {} bytes arrived, and {allowed} may have",
            received.len()
        );
    })
}

fn bytes_of(units: &[Unit]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.bytes.clone()).collect()
}

fn blocks_seen(held: &[Held]) -> usize {
    let up = held.iter().filter(|held| held.direction() == Some(Direction::ClientToServer));
    let calls = up.flat_map(|held| &held.entries).filter_map(|(body, _)| match body {
        Body::CallEvents(call) => Some(call),
        _ => None,
    });
    calls.flat_map(|call| &call.events).filter(|event| event.r#type() == EventType::ClientHeader).count()
}

/// A socket that the relay has closed, because it refuses, takes no more.
fn write_in_pieces(stream: &mut TcpStream, bytes: &[u8], lengths: &[usize]) {
    let (mut rest, mut lengths) = (bytes, lengths.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        if stream.write_all(piece).is_err() {
            return;
        }
        rest = behind;
        thread::yield_now();
    }
}

/// Gives receipts at random times, in random order.
struct Giver {
    thread: thread::JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

impl Giver {
    fn start(rig: &Rig, script: &Script, given: Given, is_refusing: Arc<AtomicBool>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (port, over, given) = (rig.port.clone(), Arc::clone(&is_over), Mutex::new(given));
        let (mut random, refused_after) = (script.seed, script.refused_after.unwrap_or(usize::MAX));
        let give = move || {
            let mut answers = 0;
            while !over.load(Ordering::SeqCst) {
                let mut open = Vec::new();
                port.wait(Duration::from_millis(1), |held| {
                    open = held
                        .iter()
                        .enumerate()
                        .filter(|(_, held)| !held.is_answered())
                        .map(|(number, _)| number)
                        .collect();
                    !open.is_empty()
                });
                for _ in 0..next(&mut random) % 64 {
                    thread::yield_now();
                }
                if open.is_empty() || next(&mut random).is_multiple_of(4) {
                    continue;
                }
                let number = open[usize::try_from(next(&mut random) % open.len() as u64).unwrap()];
                // From the first refusal on all are refused, as a ledger does.
                if answers >= refused_after {
                    is_refusing.store(true, Ordering::SeqCst);
                    port.answer(number, Err(CommitError::Refusing("full".into())), |_| {});
                } else {
                    let receipt = Receipt::Committed { size: 1 };
                    port.answer(number, Ok(receipt), |held| given.lock().unwrap().note(number, held));
                }
                answers += 1;
            }
        };
        Self { thread: thread::spawn(give), is_over }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::SeqCst);
        assert!(self.thread.join().is_ok(), "the giver has failed");
    }
}

/// Waits until something is refused, or everything has passed because there was too little to refuse.
fn wait_for_refusal(rig: &Rig, is_refusing: &AtomicBool, up: &[u8], down: &[u8]) {
    let passed = || rig.received(Way::Up).len() >= up.len() && rig.received(Way::Down).len() >= down.len();
    let end = Instant::now() + PATIENCE;
    while !(is_refusing.load(Ordering::SeqCst) || passed()) {
        assert!(Instant::now() < end, "nothing is refused, and not everything passes");
        rig.port.wait(Duration::from_millis(1), |_| is_refusing.load(Ordering::SeqCst));
    }
}

fn assert_refused(rig: &Rig, client: &Author, server: &Author, allowed: &[Arc<AtomicUsize>; 2]) {
    // Upstream: a beginning of what the client sent, whole units only, all of it committed; then the end.
    let received = rig.wait_for_end(Way::Up);
    let delivered = whole_units(&client.units, &received);
    assert_eq!(
        delivered.bytes,
        received.len(),
        "upstream got something else than a beginning of what the client sent"
    );
    assert!(received.len() <= allowed[Way::Up as usize].load(Ordering::SeqCst));
    // The client: a beginning of what the server sent, then an end of each call that is open by then, and a GOAWAY.
    let ends = |bytes: &[u8]| {
        let delivered = whole_units(&server.units, bytes);
        let expected: BTreeSet<u32> = (0..STREAMS)
            .map(|number| 2 * number + 1)
            .filter(|stream| !delivered.ended.contains(stream) && !client.reset.contains(stream))
            .collect();
        (Answers::read(&bytes[delivered.bytes..]), expected, delivered)
    };
    let is_complete = |bytes: &[u8]| {
        let (answers, expected, _) = ends(bytes);
        expected.is_subset(&answers.ended) && (expected.is_empty() || answers.has_goaway)
    };
    let received = rig.wait_for(Way::Down, is_complete);
    let (answers, _, delivered) = ends(&received);
    assert!(
        delivered.bytes <= allowed[Way::Down as usize].load(Ordering::SeqCst),
        "more of the server's frames than committed"
    );
    let twice: Vec<_> = answers.ended.intersection(&delivered.ended).collect();
    assert!(twice.is_empty(), "calls {twice:?} had ended for the client already");
}

struct Delivered {
    bytes: usize,
    ended: BTreeSet<u32>,
}

/// The units at the beginning of `received`.
fn whole_units(units: &[Unit], received: &[u8]) -> Delivered {
    let mut delivered = Delivered { bytes: 0, ended: BTreeSet::new() };
    for unit in units {
        if !received[delivered.bytes..].starts_with(&unit.bytes) {
            break;
        }
        delivered.bytes += unit.bytes.len();
        delivered.ended.extend(unit.ends);
    }
    delivered
}

/// What attestry said itself.
#[derive(Debug, Default)]
struct Answers {
    ended: BTreeSet<u32>,
    has_goaway: bool,
}

impl Answers {
    fn read(bytes: &[u8]) -> Self {
        let mut answers = Self::default();
        let mut decoder = hpack::Decoder::new();
        for frame in frames_of(bytes) {
            match frame.kind() {
                kind::HEADERS => answers.unavailable(&frame, &mut decoder),
                kind::RST_STREAM => {
                    let code = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                    // An answer is followed by NO_ERROR; a call that had a response is broken off.
                    let fits = if answers.ended.insert(frame.stream()) {
                        code::INTERNAL_ERROR
                    } else {
                        code::NO_ERROR
                    };
                    assert_eq!(code, fits, "{frame:?}");
                }
                kind::GOAWAY => answers.has_goaway = true,
                kind::SETTINGS | kind::PING => {}
                _ => panic!("attestry says {frame:?}"),
            }
        }
        answers
    }

    fn unavailable(&mut self, frame: &Frame, decoder: &mut hpack::Decoder) {
        assert!(frame.has(flag::END_STREAM) && self.ended.insert(frame.stream()), "{frame:?}");
        let fields = decoder.decode(frame.fragment().unwrap()).unwrap();
        let has = |name: &str, value: &str| fields.contains(&(name.into(), value.into()));
        let is_grpc = frame.stream() % 4 == 1;
        let fits =
            if is_grpc { has(":status", "200") && has("grpc-status", "14") } else { has(":status", "503") };
        assert!(fits, "call {} is answered with {fields:?}", frame.stream());
    }
}
