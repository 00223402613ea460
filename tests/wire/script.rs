//! What a case is, how it is played, and how two plays of it are compared.
//!
//! A case is one function that drives both peers in turn, so its order of steps is the order of events: nothing
//! happens at the same time by chance. Played DIRECT, the client is connected to the server; played RELAYED, something
//! stands between. What each side received must then be the same, byte by byte and in its end.
//! Not here: sockets and waits (`driver.rs`), the cases themselves (the modules named after their subject).

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::driver::{End, Peer, Received, Stall, Step};
use crate::frames::{Frame, PREFACE, flag, kind};
use crate::frames::{data, headers, settings, settings_ack};
use crate::hpack::{Decoder, Field, at, indexed, literal, literal_at};

/// One case: its name is also the method of its calls.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) script: fn(&mut Wire) -> Step,
}

/// Both ends of one connection, and the case that drives them.
pub(crate) struct Wire {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    name: &'static str,
}

/// What each side received in one play.
pub(crate) struct Played {
    pub(crate) client: Received,
    pub(crate) server: Received,
}

/// Something that relays connections from its own address to the listener it was started for.
pub(crate) trait Between: Sized {
    fn start(upstream: SocketAddr) -> Self;
    fn addr(&self) -> SocketAddr;
    /// Ends it in order after all its connections have ended, and names whatever is wrong with what it leaves behind
    /// for calls of these paths.
    fn finish(self, paths: Vec<String>) -> Vec<String>;
}

/// Plays every case direct and through a `B`, and names all differences.
pub(crate) fn differences<B: Between>(cases: &[Case], patience: Duration) -> Vec<String> {
    let direct = bind();
    let mut world: Option<World<B>> = None;
    let mut found = Vec::new();
    for case in cases {
        let plain = play(case, addr_of(&direct), &direct, patience).unwrap_or_else(|Stall(why)| {
            panic!("{}: the case itself fails without a relay: {why}", case.name)
        });
        let mut here = world.take().unwrap_or_else(World::start);
        match play(case, here.between.addr(), &here.upstream, patience) {
            Ok(relayed) => {
                here.calls.extend(calls_in(&relayed.client, &relayed.server));
                found.extend(difference(case.name, "client", 0, &plain.client, &relayed.client));
                found.extend(difference(case.name, "server", PREFACE.len(), &plain.server, &relayed.server));
                world = Some(here);
            }
            // What is left of this play could reach into the next one: that gets a relay and a listener of its own.
            Err(Stall(why)) => found.push(format!("{}: relayed only: {why}", case.name)),
        }
    }
    found.extend(world.into_iter().flat_map(|world| finished(world.between, world.calls)));
    found
}

/// What is wrong at the end, a panic included: it must not hide what was found before.
pub(crate) fn finished<B: Between>(between: B, paths: Vec<String>) -> Vec<String> {
    catch_unwind(AssertUnwindSafe(|| between.finish(paths)))
        .unwrap_or_else(|_| vec!["the end failed, see the panic above".to_owned()])
}

struct World<B> {
    upstream: TcpListener,
    between: B,
    calls: Vec<String>,
}

impl<B: Between> World<B> {
    fn start() -> Self {
        let upstream = bind();
        let between = B::start(addr_of(&upstream));
        Self { upstream, between, calls: Vec::new() }
    }
}

/// Plays a case once. Whatever its script left open is closed in order: first by the client, then by the server.
pub(crate) fn play(
    case: &Case,
    target: SocketAddr,
    listener: &TcpListener,
    patience: Duration,
) -> Step<Played> {
    let mut wire = Wire::open(case.name, target, listener, patience)?;
    (case.script)(&mut wire)?;
    wire.close()
}

/// The `:path` of each call that these peers made: of each stream that the client opened, by HEADERS of a number above all
/// before (RFC 9113 section 5.1.1), and of each that the server promised. Where there are several paths the first counts, where there is none an empty one.
pub(crate) fn calls_in(client: &Received, server: &Received) -> Vec<String> {
    let mut highest = 0;
    let asked = blocks_in(&server.frames(PREFACE.len()).0)
        .into_iter()
        .filter(|(first, _)| {
            let opens = first.stream() % 2 == 1 && first.stream() > highest;
            highest = highest.max(if opens { first.stream() } else { 0 });
            opens
        })
        .map(|(_, fields)| path_in(&fields));
    let promised = blocks_in(&client.frames(0).0)
        .into_iter()
        .filter(|(first, _)| {
            // The stream that it promises is a server's: an odd one makes it a frame that means nothing.
            let pad_length = usize::from(first.has(flag::PADDED));
            first.kind() == kind::PUSH_PROMISE && first.payload[pad_length + 3] % 2 == 0
        })
        .map(|(_, fields)| path_in(&fields));
    asked.chain(promised).collect()
}

/// Each whole header block: its first frame and its fields.
fn blocks_in(frames: &[Frame]) -> Vec<(Frame, Vec<Field>)> {
    let (mut decoder, mut open, mut blocks) = (Decoder::new(), None, Vec::new());
    for frame in frames {
        let Some(fragment) = frame.fragment() else { continue };
        let (_, block) = open.get_or_insert_with(|| (frame.clone(), Vec::new()));
        block.extend(fragment);
        if let Some((first, block)) = open.take_if(|_| frame.has(flag::END_HEADERS)) {
            blocks.push((first, decoder.decode(&block).unwrap_or_default()));
        }
    }
    blocks
}

fn path_in(fields: &[Field]) -> String {
    let path = fields.iter().find(|(name, _)| name == b":path").map(|(_, value)| value.as_slice());
    String::from_utf8_lossy(path.unwrap_or_default()).into_owned()
}

pub(crate) fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port on the loopback interface")
}

pub(crate) fn addr_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

impl Wire {
    pub(crate) fn open(
        name: &'static str,
        target: SocketAddr,
        listener: &TcpListener,
        patience: Duration,
    ) -> Step<Self> {
        let server = Peer::awaiting("server", listener, patience)?;
        Ok(Self { client: Peer::connect("client", target, patience)?, server, name })
    }

    /// The case's name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Both prefaces with these SETTINGS, each acknowledged and each step seen by the other side.
    pub(crate) fn hello_with(&mut self, client: &[(u16, u32)], server: &[(u16, u32)]) -> Step {
        self.client.send(&[PREFACE, &settings(client)[..]].concat())?;
        self.server.preface()?;
        self.server.frame()?;
        self.server_sends(&[settings(server), settings_ack()].concat())?;
        self.client_sends(&settings_ack())
    }

    pub(crate) fn hello(&mut self) -> Step {
        self.hello_with(&[], &[])
    }

    /// The client sends these frames, and the server takes as many.
    pub(crate) fn client_sends(&mut self, frames: &[u8]) -> Step {
        self.client.send(frames)?;
        self.server.frames(count(frames)).map(drop)
    }

    /// The server sends these frames, and the client takes as many.
    pub(crate) fn server_sends(&mut self, frames: &[u8]) -> Step {
        self.server.send(frames)?;
        self.client.frames(count(frames)).map(drop)
    }

    /// The header block of a gRPC request, which leaves the dynamic table as it is.
    pub(crate) fn request(&self) -> Vec<u8> {
        let path = format!("/wire.Case/{}", self.name);
        request_for(&path)
    }

    /// The client opens a call and leaves it open.
    pub(crate) fn call(&mut self, stream: u32) -> Step {
        let block = self.request();
        self.client_sends(&headers(stream, flag::NONE, &block))
    }

    /// A whole unary call on `stream`.
    pub(crate) fn unary(&mut self, stream: u32) -> Step {
        self.call(stream)?;
        self.client_sends(&data(stream, flag::END_STREAM, &message(b"question")))?;
        self.server_sends(&answer(stream))
    }

    fn close(mut self) -> Step<Played> {
        end(&mut self.client, &mut self.server)?;
        end(&mut self.server, &mut self.client)?;
        Ok(Played { client: self.client.received(), server: self.server.received() })
    }
}

/// Ends what `closing` sends, unless its script has done so, and waits until the other side has seen it.
fn end(closing: &mut Peer, other: &mut Peer) -> Step {
    if !closing.is_closed() {
        closing.half_close()?;
    }
    if other.received().end != Some(End::AbortedHere) {
        other.end()?;
    }
    Ok(())
}

/// The header block of a gRPC request for `path`, which leaves the dynamic table as it is.
pub(crate) fn request_for(path: &str) -> Vec<u8> {
    [
        indexed(at::POST),
        indexed(at::HTTP),
        literal_at(at::PATH, path),
        literal_at(at::AUTHORITY, "wire.test"),
        literal_at(at::CONTENT_TYPE, "application/grpc"),
        literal("te", "trailers"),
    ]
    .concat()
}

/// The header block that begins a gRPC response.
pub(crate) fn response() -> Vec<u8> {
    [indexed(at::STATUS), literal_at(at::CONTENT_TYPE, "application/grpc")].concat()
}

/// The header block of trailers that say OK.
pub(crate) fn trailers() -> Vec<u8> {
    literal("grpc-status", "0")
}

/// The three frames of a unary gRPC response.
pub(crate) fn answer(stream: u32) -> Vec<u8> {
    [
        headers(stream, flag::NONE, &response()),
        data(stream, flag::NONE, &message(b"answer")),
        headers(stream, flag::END_STREAM, &trailers()),
    ]
    .concat()
}

/// A gRPC message: no compression, length, body.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a test's message is short");
    [&[0][..], &length.to_be_bytes(), body].concat()
}

/// How many whole frames these bytes hold. A script that counts wrong would wait for ever, so a rest is a fault.
fn count(frames: &[u8]) -> usize {
    let all = Received { bytes: frames.to_vec(), end: None };
    let (frames, rest) = all.frames(0);
    assert!(rest.is_empty(), "a script sends whole frames here; use Peer::send for parts of one");
    frames.len()
}

/// The first difference between what one side received in the two plays, told by frames.
fn difference(case: &str, side: &str, at: usize, direct: &Received, relayed: &Received) -> Option<String> {
    if direct == relayed {
        return None;
    }
    let mut told = format!("{case}: the {side} received something else through the relay");
    let ((plain, plain_rest), (other, other_rest)) = (direct.frames(at), relayed.frames(at));
    let same = plain.iter().zip(&other).take_while(|(a, b)| a == b).count();
    if same < plain.len().max(other.len()) {
        let (plain, other) = (decoded(&plain), decoded(&other));
        let _ = write!(
            told,
            "\n  after {same} equal frames of {} direct and {} relayed",
            plain.len(),
            other.len()
        );
        for index in same..same + 4 {
            let _ = write!(told, "\n    direct  {:?}\n    relayed {:?}", plain.get(index), other.get(index));
        }
    } else if direct.bytes != relayed.bytes {
        let _ = write!(
            told,
            "\n  behind {same} equal frames: direct {plain_rest:02x?}, relayed {other_rest:02x?}"
        );
    }
    if direct.end != relayed.end {
        let _ = write!(told, "\n  the end: direct {:?}, relayed {:?}", direct.end, relayed.end);
    }
    Some(told)
}

/// Each frame in words, a header block decoded at the frame that completes it.
fn decoded(frames: &[Frame]) -> Vec<String> {
    let (mut decoder, mut block) = (Decoder::new(), Vec::new());
    let mut told = Vec::new();
    for frame in frames {
        let mut line = format!("{frame:?}");
        if let Some(fragment) = frame.fragment() {
            block.extend(fragment);
            if frame.has(flag::END_HEADERS) {
                let fields = decoder.decode(&std::mem::take(&mut block));
                let fields = fields.map(|fields| fields.iter().map(in_words).collect::<Vec<_>>());
                let _ = write!(line, " fields {fields:?}");
            }
        }
        told.push(line);
    }
    told
}

fn in_words((name, value): &Field) -> String {
    format!("{}: {}", name.escape_ascii(), value[..value.len().min(80)].escape_ascii())
}
