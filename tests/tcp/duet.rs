//! Two raw peers that say exact bytes to each other: cases, played direct and through something in between, and compared.
//!
//! A case is one function that drives both peers in turn, so its order of steps is the order of events. Played direct, the client is connected to the server; played
//! relayed, something stands between. What each side received must be the same, byte by byte and in its end: there is no normalisation. And what the something in
//! between tells of the cases afterwards must be what the case says. Not here: sockets and waits (`wire/driver.rs`), the cases, what a ledger tells (`told.rs`).
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::driver::{End, Peer, Received, Stall, Step};

/// One case, and what a ledger must tell of its connection.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) script: fn(&mut Wire) -> Step,
    /// Its calls, in the order of their requests.
    pub(crate) calls: &'static [Call],
    /// What was found to be spoken, one after the other: "http1: a request line".
    pub(crate) found: &'static [&'static str],
    /// Who ended it, and how: "client: closed by the client".
    pub(crate) end: &'static str,
}

/// What a ledger must tell of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// "GET /path 200 ended", and behind it in parentheses what was said of the status.
    pub(crate) line: &'static str,
    /// The content of the request and that of the response, as far as they came.
    pub(crate) asked: &'static [u8],
    pub(crate) answered: &'static [u8],
    /// Why it was given up, where the line does not say it.
    pub(crate) note: &'static str,
}

pub(crate) const HTTP: &[&str] = &["http1: a request line"];
pub(crate) const BY_CLIENT: &str = "client: closed by the client";
pub(crate) const BY_SERVER: &str = "server: closed by the server";

/// A call with a content each way.
pub(crate) const fn call(line: &'static str, asked: &'static [u8], answered: &'static [u8]) -> Call {
    Call { line, asked, answered, note: "" }
}

impl Call {
    /// The same, given up although it has a status.
    pub(crate) const fn cut(self, note: &'static str) -> Self {
        Self { note, ..self }
    }
}

/// A case of HTTP/1 in which the client ends first.
pub(crate) const fn http(name: &'static str, calls: &'static [Call], script: fn(&mut Wire) -> Step) -> Case {
    Case { name, script, calls, found: HTTP, end: BY_CLIENT }
}

impl Case {
    /// The same with another end.
    pub(crate) const fn ending(self, end: &'static str) -> Self {
        Self { end, ..self }
    }

    /// The same with other protocols found.
    pub(crate) const fn finding(self, found: &'static [&'static str]) -> Self {
        Self { found, ..self }
    }
}

/// Both ends of one connection.
pub(crate) struct Wire {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    asked: usize,
    answered: usize,
}

/// What each side received in one play.
pub(crate) struct Played {
    pub(crate) case: Case,
    pub(crate) client: Received,
    pub(crate) server: Received,
}

/// Something that relays connections from its own address to the listener it was started for.
pub(crate) trait Between: Sized {
    fn start(upstream: SocketAddr) -> Self;
    fn addr(&self) -> SocketAddr;
    /// Ends it in order, and names whatever is wrong in what it tells of these plays: one connection each, in this order.
    fn finish(self, played: &[Played]) -> Vec<String>;
}

/// Plays every case direct and through a `B`, and names all differences.
pub(crate) fn differences<B: Between>(cases: &[Case], patience: Duration) -> Vec<String> {
    let direct = bind();
    let mut found = Vec::new();
    let mut world: Option<World<B>> = None;
    for case in cases {
        let plain = play(*case, addr_of(&direct), &direct, patience).unwrap_or_else(|Stall(why)| {
            panic!("{}: the case itself fails without a relay: {why}", case.name)
        });
        let mut here = world.take().unwrap_or_else(World::start);
        match play(*case, here.between.addr(), &here.upstream, patience) {
            Ok(relayed) => {
                found.extend(difference(case.name, "client", &plain.client, &relayed.client));
                found.extend(difference(case.name, "server", &plain.server, &relayed.server));
                here.played.push(relayed);
                world = Some(here);
            }
            // What is left of this play could reach into the next one: that gets a relay and a listener of its own.
            Err(Stall(why)) => found.push(format!("{}: relayed only: {why}", case.name)),
        }
    }
    found.extend(world.into_iter().flat_map(World::finish));
    found
}

/// Nothing may differ.
pub(crate) fn assert_same<B: Between>(cases: &[Case], patience: Duration) {
    let wanted = std::env::var("WIRE_CASES").unwrap_or_default();
    let cases: Vec<Case> = cases.iter().filter(|case| case.name.contains(&wanted)).copied().collect();
    let found = differences::<B>(&cases, patience);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// The named case must differ through a relay that lies. The patience is short, since a lie may be something that never comes.
pub(crate) fn assert_found<B: Between>(cases: &[Case], name: &str) {
    let case: Vec<Case> = cases.iter().filter(|case| case.name == name).copied().collect();
    assert_eq!(case.len(), 1, "there is one case {name}");
    let found = differences::<B>(&case, Duration::from_millis(500));
    assert!(!found.is_empty(), "nobody noticed the lie that {name} should uncover");
}

struct World<B> {
    upstream: TcpListener,
    between: B,
    played: Vec<Played>,
}

impl<B: Between> World<B> {
    fn start() -> Self {
        let upstream = bind();
        let between = B::start(addr_of(&upstream));
        Self { upstream, between, played: Vec::new() }
    }

    /// What is wrong at the end, a panic included: it must not hide what was found before.
    fn finish(self) -> Vec<String> {
        let Self { between, played, .. } = self;
        catch_unwind(AssertUnwindSafe(|| between.finish(&played)))
            .unwrap_or_else(|_| vec!["the end failed, see the panic above".to_owned()])
    }
}

/// Plays a case once. Whatever its script left open is closed in order: first by the client, then by the server.
fn play(case: Case, target: SocketAddr, listener: &TcpListener, patience: Duration) -> Step<Played> {
    let mut wire = Wire::open(target, listener, patience)?;
    (case.script)(&mut wire)?;
    wire.close(case)
}

pub(crate) fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port on the loopback interface")
}

pub(crate) fn addr_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

impl Wire {
    pub(crate) fn open(target: SocketAddr, listener: &TcpListener, patience: Duration) -> Step<Self> {
        let server = Peer::awaiting("server", listener, patience)?;
        let client = Peer::connect("client", target, patience)?;
        Ok(Self { client, server, asked: 0, answered: 0 })
    }

    /// The client sends this, and the server has it.
    pub(crate) fn asks(&mut self, bytes: &[u8]) -> Step {
        self.asks_in_pieces(bytes, bytes.len().max(1))
    }

    /// The server sends this, and the client has it.
    pub(crate) fn answers(&mut self, bytes: &[u8]) -> Step {
        self.answers_in_pieces(bytes, bytes.len().max(1))
    }

    pub(crate) fn asks_in_pieces(&mut self, bytes: &[u8], piece_bytes: usize) -> Step {
        self.client.send_pieces(bytes, piece_bytes)?;
        self.asked += bytes.len();
        self.server.bytes_waiting(self.asked)
    }

    pub(crate) fn answers_in_pieces(&mut self, bytes: &[u8], piece_bytes: usize) -> Step {
        self.server.send_pieces(bytes, piece_bytes)?;
        self.answered += bytes.len();
        self.client.bytes_waiting(self.answered)
    }

    /// The client sends this, and the server will have it some time.
    pub(crate) fn says(&mut self, bytes: &[u8]) -> Step {
        self.asked += bytes.len();
        self.client.send(bytes)
    }

    /// The server has all that the client has said.
    pub(crate) fn server_hears(&mut self) -> Step {
        self.server.bytes_waiting(self.asked)
    }

    /// A request and its response.
    pub(crate) fn exchange(&mut self, request: &[u8], response: &[u8]) -> Step {
        self.asks(request)?;
        self.answers(response)
    }

    /// The client sends its FIN, and the server sees it.
    pub(crate) fn client_ends(&mut self) -> Step {
        self.server.accept()?;
        self.client.half_close()?;
        expect(&mut self.server, End::Fin)
    }

    /// The server sends its FIN, and the client sees it.
    pub(crate) fn server_ends(&mut self) -> Step {
        self.server.half_close()?;
        expect(&mut self.client, End::Fin)
    }

    /// The client sends a reset, and the server sees it.
    pub(crate) fn client_aborts(&mut self) -> Step {
        self.server.accept()?;
        self.client.abort()?;
        expect(&mut self.server, End::Reset)
    }

    /// The server sends a reset, and the client sees it.
    pub(crate) fn server_aborts(&mut self) -> Step {
        self.server.abort()?;
        expect(&mut self.client, End::Reset)
    }

    fn close(mut self, case: Case) -> Step<Played> {
        end(&mut self.client, &mut self.server)?;
        end(&mut self.server, &mut self.client)?;
        Ok(Played { case, client: self.client.received(), server: self.server.received() })
    }
}

fn expect(peer: &mut Peer, expected: End) -> Step {
    let end = peer.end()?;
    (end == expected).then_some(()).ok_or_else(|| Stall(format!("{expected:?} was to come, {end:?} came")))
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

/// The first difference between what one side received in the two plays.
fn difference(case: &str, side: &str, direct: &Received, relayed: &Received) -> Option<String> {
    const SHOWN: usize = 120;
    if direct == relayed {
        return None;
    }
    let same = direct.bytes.iter().zip(&relayed.bytes).take_while(|(one, other)| one == other).count();
    let shown = |bytes: &[u8]| bytes[same..bytes.len().min(same + SHOWN)].escape_ascii().to_string();
    Some(format!(
        "{case}: the {side} received something else through the relay, behind {same} equal bytes\n    direct  \"{}\", in all {}, then {:?}\n    relayed \"{}\", in all {}, then {:?}",
        shown(&direct.bytes),
        direct.bytes.len(),
        direct.end,
        shown(&relayed.bytes),
        relayed.bytes.len(),
        relayed.end
    ))
}
