//! Bytes that the relay itself must refuse, since it cannot record what they say: header blocks that do not decode,
//! blocks that are interrupted, and blocks over its bounds.
//!
//! Direct, the offender meets a real HTTP/2 implementation (nghttp2's server or client, and h2's); relayed, a raw peer
//! that would bear anything. The error code that the offender is told must be the same both times; only the code is
//! compared, since the last stream, the debug data and what else is on the wire are each implementation's own. Relayed,
//! more is shown: nothing of the offence reaches the other side, which is told to end as well.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use crate::driver::{Peer, Stall, Step};
use crate::frames::{PREFACE, code, data, flag, frame, headers, kind, ping, settings, settings_ack};
use crate::hpack::{indexed, int, keep, literal, literal_at, resize, string};
use crate::script::{Between, Wire, addr_of, bind, calls_in, finished, request_for, response};
use crate::support::process::Process;

/// Something that a peer must not send, and what it is told.
struct Offence {
    name: &'static str,
    what: What,
    code: u32,
    /// What h2 says to it; nghttp2 says `code`. `None` where the bound is the relay's own: real peers draw theirs elsewhere.
    h2_code: Option<u32>,
}

/// How an offence is made from a stream and the header block that would be good on it.
enum What {
    Block(fn(&[u8]) -> Vec<u8>),
    Frames(fn(u32, &[u8]) -> Vec<u8>),
}

const OFFENCES: &[Offence] = &[
    compression("index_0", |good| [good, &indexed(0)].concat()),
    compression("index_past_the_tables", |good| [good, &indexed(62)].concat()),
    compression("index_of_a_name_past_the_tables", |good| [good, &literal_at(100, "v")].concat()),
    compression("index_without_end", |good| [good, &[0xff; 12]].concat()),
    compression("integer_cut_off", |good| [good, &[0xff, 0x80]].concat()),
    compression("string_longer_than_its_block", |good| [good, &[0x00, 0x05], b"abc"].concat()),
    compression("value_missing", |good| [good, &[0x00], &string("name")].concat()),
    compression("huffman_padding_of_zeros", |good| [good, &[0x00, 0x81, 0b0001_1000], &string("v")].concat()),
    compression("huffman_padding_of_8_bits", |good| {
        [good, &[0x00, 0x82, 0b0001_1111, 0xff], &string("v")].concat()
    }),
    compression("huffman_end_of_string", |good| [good, &[0x00, 0x84], &[0xff; 4], &string("v")].concat()),
    compression("size_update_too_large", |good| [&resize(4097)[..], good].concat()),
    compression("size_update_without_end", |good| [&int(5, 0x20, 1 << 40)[..], good].concat()),
    compression("size_update_within_a_block", |good| [good, &resize(0)].concat()),
    compression("evicted_index", |good| {
        [&keep("x-gone", "1")[..], &keep("x", [b'v'; 5000]), good, &indexed(62)].concat()
    }),
    protocol("data_within_a_block", |stream, good| {
        [begun(stream, good), data(stream, flag::NONE, b""), continuation(stream, b"")].concat()
    }),
    protocol("ping_within_a_block", |stream, good| {
        [begun(stream, good), ping(flag::NONE, *b"8 bytes."), continuation(stream, b"")].concat()
    }),
    protocol("headers_within_a_block", |stream, good| {
        [begun(stream, good), headers(stream + 2, 0, good)].concat()
    }),
    protocol("unknown_frame_within_a_block", |stream, good| {
        [begun(stream, good), frame(0xfa, flag::NONE, stream, b""), continuation(stream, b"")].concat()
    }),
    protocol("continuation_of_another_stream", |stream, good| {
        [begun(stream, good), continuation(stream + 2, b"")].concat()
    }),
    protocol("continuation_of_nothing", continuation),
    protocol("header_padding_past_its_frame", |stream, good| {
        headers(stream, flag::PADDED, &[&[255][..], good].concat())
    }),
    protocol("header_padding_without_its_length", |stream, _| headers(stream, flag::PADDED, b"")),
    Offence {
        name: "header_priority_cut_off",
        what: What::Frames(|stream, _| headers(stream, flag::PRIORITY, &[0; 4])),
        code: code::FRAME_SIZE_ERROR,
        h2_code: Some(code::PROTOCOL_ERROR),
    },
    // Here the real peers answer otherwise or bear it: the bound is the relay's own (docs/configuration.md, [limits]).
    Offence {
        name: "continuations_without_end",
        what: What::Frames(|stream, good| {
            [begun(stream, good), frame(kind::CONTINUATION, 0, stream, b"").repeat(5000)].concat()
        }),
        code: code::ENHANCE_YOUR_CALM,
        h2_code: None,
    },
    Offence {
        name: "header_list_over_the_bound",
        what: What::Frames(|stream, good| {
            let field = literal("x-large", [b'v'; 16_000]);
            let more = frame(kind::CONTINUATION, 0, stream, &field).repeat(200);
            [begun(stream, good), more, continuation(stream, b"")].concat()
        }),
        code: code::ENHANCE_YOUR_CALM,
        h2_code: None,
    },
    // A small block can name a large list: each octet here repeats a field of 4,000.
    Offence {
        name: "header_list_over_the_bound_by_indices",
        what: What::Frames(|stream, good| {
            let bomb = [&keep("x-bomb", [b'v'; 4000])[..], good, &[0xbe; 12_000]].concat();
            headers(stream, flag::NONE, &bomb)
        }),
        code: code::ENHANCE_YOUR_CALM,
        h2_code: None,
    },
];

/// A block that cannot be decoded: COMPRESSION_ERROR (RFC 9113 section 4.3), for which h2 0.4 says PROTOCOL_ERROR.
const fn compression(name: &'static str, block: fn(&[u8]) -> Vec<u8>) -> Offence {
    Offence {
        name,
        what: What::Block(block),
        code: code::COMPRESSION_ERROR,
        h2_code: Some(code::PROTOCOL_ERROR),
    }
}

/// A block whose frames cannot be put together (RFC 9113 section 6.10).
const fn protocol(name: &'static str, frames: fn(u32, &[u8]) -> Vec<u8>) -> Offence {
    Offence {
        name,
        what: What::Frames(frames),
        code: code::PROTOCOL_ERROR,
        h2_code: Some(code::PROTOCOL_ERROR),
    }
}

impl Offence {
    fn frames(&self, stream: u32, good: &[u8]) -> Vec<u8> {
        match self.what {
            What::Block(block) => headers(stream, flag::NONE, &block(good)),
            What::Frames(frames) => frames(stream, good),
        }
    }

    fn request(&self) -> Vec<u8> {
        request_for(&format!("/wire.Refusal/{}", self.name))
    }
}

/// HEADERS whose block goes on.
fn begun(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::NONE, stream, block)
}

/// CONTINUATION that ends its block.
fn continuation(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flag::END_HEADERS, stream, block)
}

/// Commits each offence against h2, from each side, and names each answer that is not the one that the case states.
pub(crate) fn disagreements_of_h2(patience: Duration) -> Vec<String> {
    disagreements(|offence| {
        let told = [h2_tells_the_client(offence, patience), h2_tells_the_server(offence, patience)];
        (told, offence.h2_code)
    })
}

/// The same against nghttp2's server `nghttpd` and client `nghttp`.
pub(crate) fn disagreements_of_nghttp2(patience: Duration) -> Vec<String> {
    let nghttpd = Nghttpd::start(patience);
    disagreements(|offence| {
        let told = [nghttpd.tells_the_client(offence, patience), nghttp_tells_the_server(offence, patience)];
        (told, Some(offence.code))
    })
}

fn disagreements(mut commit: impl FnMut(&Offence) -> ([Step<u32>; 2], Option<u32>)) -> Vec<String> {
    let mut found = Vec::new();
    for offence in OFFENCES.iter().filter(|offence| offence.h2_code.is_some()) {
        let (told, stated) = commit(offence);
        for (side, told) in ["client", "server"].into_iter().zip(told) {
            match told {
                Ok(told) if Some(told) == stated => {}
                Ok(told) => found.push(format!("{} by the {side}: the real peer says {told}", offence.name)),
                Err(Stall(why)) => found.push(format!("{} by the {side}, direct: {why}", offence.name)),
            }
        }
    }
    found
}

/// Commits each offence whose name holds `wanted` through a `B`, from each side, and names whatever is not as it should be.
pub(crate) fn differences<B: Between>(wanted: &str, patience: Duration) -> Vec<String> {
    let mut found = Vec::new();
    let (mut upstream, mut between, mut calls) = started::<B>();
    for offence in OFFENCES.iter().filter(|offence| offence.name.contains(wanted)) {
        for (side, relayed) in [("client", client_relayed as Relayed), ("server", server_relayed)] {
            let case = format!("{} by the {side}", offence.name);
            match relayed(offence, between.addr(), &upstream, patience) {
                Ok(told) => {
                    calls.extend(told.calls);
                    found.extend(told.faults.into_iter().map(|fault| format!("{case}: {fault}")));
                }
                Err(Stall(why)) => {
                    found.push(format!("{case}, relayed: {why}"));
                    (upstream, between, calls) = started::<B>();
                }
            }
        }
    }
    found.extend(finished(between, calls));
    found
}

type Relayed = fn(&Offence, SocketAddr, &TcpListener, Duration) -> Step<Told>;

/// What came of an offence through the relay.
struct Told {
    faults: Vec<String>,
    calls: Vec<String>,
}

fn started<B: Between>() -> (TcpListener, B, Vec<String>) {
    let upstream = bind();
    let between = B::start(addr_of(&upstream));
    (upstream, between, Vec::new())
}

fn client_relayed(
    offence: &Offence,
    target: SocketAddr,
    upstream: &TcpListener,
    patience: Duration,
) -> Step<Told> {
    let mut wire = Wire::open(offence.name, target, upstream, patience)?;
    wire.hello()?;
    wire.unary(1)?;
    wire.client.send(&offence.frames(3, &offence.request()))?;
    let Wire { client, server, .. } = &mut wire;
    let faults = both_told(offence, client, server)?;
    Ok(Told { faults, calls: calls_in(&wire.client.received(), &wire.server.received()) })
}

fn server_relayed(
    offence: &Offence,
    target: SocketAddr,
    upstream: &TcpListener,
    patience: Duration,
) -> Step<Told> {
    let mut wire = Wire::open(offence.name, target, upstream, patience)?;
    wire.hello()?;
    wire.call(1)?;
    wire.server.send(&offence.frames(1, &response()))?;
    let Wire { client, server, .. } = &mut wire;
    let faults = both_told(offence, server, client)?;
    Ok(Told { faults, calls: calls_in(&wire.client.received(), &wire.server.received()) })
}

/// The offender must be told the code, the other side as well and without having seen a frame of the offence; then both
/// connections end.
fn both_told(offence: &Offence, offender: &mut Peer, other: &mut Peer) -> Step<Vec<String>> {
    let mut faults = Vec::new();
    let told = offender.frame_of(kind::GOAWAY)?.goaway().map(|(_, code)| code);
    if told != Some(offence.code) {
        faults.push(format!(
            "a real peer says {}, through the relay the offender is told {told:?}",
            offence.code
        ));
    }
    let next = other.frame()?;
    if next.goaway().map(|(_, code)| code) != Some(offence.code) {
        faults.push(format!(
            "the other side should be told {} and nothing else, and got {next:?}",
            offence.code
        ));
    }
    offender.half_close()?;
    offender.end()?;
    other.half_close()?;
    other.end()?;
    Ok(faults)
}

fn h2_tells_the_client(offence: &Offence, patience: Duration) -> Step<u32> {
    let listener = bind();
    let client = Peer::connect("client", addr_of(&listener), patience)?;
    let server = h2_server(&listener);
    let told = told_as_client(client, offence)?;
    server.join().expect("h2's server ends with its connection");
    Ok(told)
}

fn h2_tells_the_server(offence: &Offence, patience: Duration) -> Step<u32> {
    let listener = bind();
    let client = h2_client(addr_of(&listener));
    let told = told_as_server(Peer::awaiting("server", &listener, patience)?, offence)?;
    client.join().expect("h2's client ends with its connection");
    Ok(told)
}

fn nghttp_tells_the_server(offence: &Offence, patience: Duration) -> Step<u32> {
    let listener = bind();
    let folder = tempfile::tempdir().expect("a folder for its standard error");
    let url = format!("http://{}/wire.Refusal/direct", addr_of(&listener));
    let mut nghttp = Process::start("nghttp", Command::new("nghttp").arg(url), folder.path());
    let told = told_as_server(Peer::awaiting("server", &listener, patience)?, offence)?;
    nghttp.wait(patience);
    Ok(told)
}

/// nghttp2's server on a port that was free a moment ago.
struct Nghttpd {
    addr: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Nghttpd {
    fn start(patience: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder for its standard error");
        let addr = addr_of(&bind());
        let port = addr.port().to_string();
        let mut command = Command::new("nghttpd");
        command.args(["--verbose", "--no-tls", "--address=127.0.0.1", port.as_str()]);
        let process = Process::start("nghttpd", &mut command, folder.path());
        process.line_after("IPv4: listen ", patience);
        Self { addr, _process: process, _folder: folder }
    }

    fn tells_the_client(&self, offence: &Offence, patience: Duration) -> Step<u32> {
        told_as_client(Peer::connect("client", self.addr, patience)?, offence)
    }
}

/// The code that a real server tells this client.
fn told_as_client(mut client: Peer, offence: &Offence) -> Step<u32> {
    client
        .send(&[PREFACE, &settings(&[])[..], &headers(1, flag::END_STREAM, &offence.request())].concat())?;
    client.frame_of(kind::HEADERS)?;
    client.send(&[settings_ack(), offence.frames(3, &offence.request())].concat())?;
    told_then_ended(client)
}

/// The code that a real client, which has one call open, tells this server.
fn told_as_server(mut server: Peer, offence: &Offence) -> Step<u32> {
    server.send(&settings(&[]))?;
    server.preface()?;
    let call = server.frame_of(kind::HEADERS)?.stream();
    server.send(&[settings_ack(), offence.frames(call, &response())].concat())?;
    told_then_ended(server)
}

fn told_then_ended(mut offender: Peer) -> Step<u32> {
    let told = offender.frame_of(kind::GOAWAY)?.goaway();
    offender.half_close()?;
    offender.end()?;
    told.map(|(_, code)| code).ok_or_else(|| Stall("the real peer's GOAWAY is too short".to_owned()))
}

/// h2's server for the one connection that already waits on `listener`; it answers each request with 200.
fn h2_server(listener: &TcpListener) -> JoinHandle<()> {
    let (stream, _) = listener.accept().expect("the connection that was made before");
    on_a_runtime(async move {
        let Ok(mut connection) = h2::server::handshake(into_tokio(stream)).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let _ = respond.send_response(hyper::Response::new(()), true);
        }
    })
}

/// h2's client with one request to `target`.
fn h2_client(target: SocketAddr) -> JoinHandle<()> {
    let stream = TcpStream::connect(target).expect("a listener that is there");
    on_a_runtime(async move {
        let Ok((mut requests, connection)) = h2::client::handshake(into_tokio(stream)).await else { return };
        let request =
            hyper::Request::post("http://wire.test/wire.Refusal/direct").body(()).expect("a valid request");
        let _answer = requests.send_request(request, true);
        // The connection's error is what the other side is told, and that is where the test reads it.
        let _ = connection.await;
    })
}

fn on_a_runtime(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime for one connection").block_on(work);
    })
}

fn into_tokio(stream: TcpStream) -> tokio::net::TcpStream {
    stream.set_nonblocking(true).expect("a socket can be made nonblocking");
    tokio::net::TcpStream::from_std(stream).expect("called within a runtime")
}
