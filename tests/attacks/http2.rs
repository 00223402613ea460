//! Attacks by well-formed frames of HTTP/2: on memory, by header compression; on the server, by calls that end at once; on everybody, by frames that cost an answer.

use std::net::TcpStream;
use std::sync::Arc;

use attestry::generated::v1::connection_event::Type;

use crate::frames::{self, code, flag, kind, setting};
use crate::h2_peers::EchoServer;
use crate::hpack::{self, at};
use crate::siege::{Attack, Bounds, besiege, builder};
use crate::upstream::Upstream;

/// Frames that are written at a time.
const BATCH: u32 = 500;

/// A request's head of an attacker.
fn head() -> Vec<u8> {
    [
        hpack::indexed(at::POST),
        hpack::indexed(at::HTTP),
        hpack::literal_at(at::PATH, "/attack.A/B"),
        hpack::literal_at(at::CONTENT_TYPE, "application/grpc"),
    ]
    .concat()
}

/// The same frames for ever, on one connection.
fn flood(attack: &Arc<Attack>, opening: &[u8], frames: &[u8]) {
    let Some(socket) = attack.connect_http2() else { return };
    if attack.send(&socket, opening) {
        while attack.send(&socket, frames) {}
    }
}

/// Calls for ever, each on a stream of its own.
fn calls(attack: &Arc<Attack>, first: &[u8], call: impl Fn(u32) -> Vec<u8>) {
    let Some(socket) = attack.connect_http2() else { return };
    attack.send(&socket, &frames::headers(1, flag::END_STREAM, first));
    let mut next = 3;
    let more = |socket: &TcpStream, next: &mut u32| {
        let batch: Vec<u8> = (0..BATCH).flat_map(|number| call(*next + 2 * number)).collect();
        *next += 2 * BATCH;
        attack.send(socket, &batch)
    };
    while more(&socket, &mut next) {}
}

#[test]
fn hpack_bombs_end_their_connection_and_are_not_kept() {
    let upstream = Upstream::start();
    let after = besiege("HPACK bombs", builder(upstream.addr), &Bounds::ONE, |attack| {
        let fill = [head(), hpack::keep("x-bomb", vec![b'b'; 4_000])].concat();
        let bomb = [head(), hpack::indexed(hpack::NEWEST).repeat(250)].concat();
        calls(attack, &fill, |stream| frames::headers(stream, flag::END_STREAM, &bomb));
    });
    let events = after.connection_events();
    let mut broken = events.iter().filter(|event| event.r#type() == Type::BoundBroken).peekable();
    assert!(broken.peek().is_some(), "no bound was broken");
    for event in broken {
        assert!(event.code == code::ENHANCE_YOUR_CALM && event.reason.contains("decodes to"), "{event:?}");
    }
}

/// The dearest request that honest peers send too: all of the header table, by one octet.
#[test]
fn references_to_a_full_header_table() {
    let upstream = Upstream::start();
    let bounds =
        Bounds { memory_kib: 64 * 1024, ledger_bytes_per_byte: 160.0, bytes: 2 << 20, ..Bounds::ONE };
    besiege("a full header table", builder(upstream.addr), &bounds, |attack| {
        let fill = [head(), hpack::keep("x-large", vec![b'b'; 4_000])].concat();
        let call = [head(), hpack::indexed(hpack::NEWEST)].concat();
        calls(attack, &fill, |stream| frames::headers(stream, flag::END_STREAM, &call));
    });
}

#[test]
fn a_continuation_flood() {
    let upstream = Upstream::start();
    let after = besiege("CONTINUATION flood", builder(upstream.addr), &Bounds::ONE, |attack| {
        let open = frames::frame(kind::HEADERS, flag::NONE, 1, &head());
        let part = hpack::literal("x-part", "v");
        flood(attack, &open, &frames::frame(kind::CONTINUATION, flag::NONE, 1, &part).repeat(500));
    });
    let broken = after.connection_events().into_iter().filter(|event| event.r#type() == Type::BoundBroken);
    let reasons: Vec<String> = broken.map(|event| event.reason).collect();
    assert!(
        !reasons.is_empty() && reasons.iter().all(|reason| reason.contains("continuations_max")),
        "{reasons:?}"
    );
}

#[test]
fn rapid_reset() {
    let upstream = Upstream::start();
    let bounds = Bounds { ledger_bytes_per_byte: 12.0, bytes: 2 << 20, ..Bounds::ONE };
    let after = besiege("rapid reset", builder(upstream.addr), &bounds, |attack| {
        calls(attack, &head(), |stream| {
            [frames::headers(stream, flag::NONE, &head()), frames::rst_stream(stream, code::CANCEL)].concat()
        });
    });
    let (requests, _) = upstream.received(kind::HEADERS);
    assert!(
        after.calls() as u64 >= requests,
        "the server has {requests} calls, the ledger {}",
        after.calls()
    );
}

#[test]
fn made_you_reset() {
    let upstream = Upstream::start();
    let bounds = Bounds { ledger_bytes_per_byte: 12.0, bytes: 2 << 20, ..Bounds::ONE };
    let after = besiege("MadeYouReset", builder(upstream.addr), &bounds, |attack| {
        calls(attack, &head(), |stream| {
            [frames::headers(stream, flag::NONE, &head()), frames::window_update(stream, 0)].concat()
        });
    });
    let (requests, _) = upstream.received(kind::HEADERS);
    assert!(
        after.calls() as u64 >= requests,
        "the server has {requests} calls, the ledger {}",
        after.calls()
    );
}

#[test]
fn small_data_frames() {
    let upstream = Upstream::start();
    besiege("small DATA", builder(upstream.addr), &Bounds::ONE, |attack| {
        // One message without end, a byte at a time.
        let begin = frames::data(1, flag::NONE, &[0, 0x7f, 0xff, 0xff, 0xff]);
        let open = [frames::headers(1, flag::NONE, &head()), begin].concat();
        flood(attack, &open, &frames::data(1, flag::NONE, b"s").repeat(500));
    });
}

#[test]
fn empty_messages() {
    let upstream = Upstream::start();
    let bounds = Bounds { ledger_bytes_per_byte: 12.0, bytes: 4 << 20, memory_kib: 48 * 1024, ..Bounds::ONE };
    besiege("empty messages", builder(upstream.addr), &bounds, |attack| {
        let open = frames::headers(1, flag::NONE, &head());
        flood(attack, &open, &frames::data(1, flag::NONE, &[0; 5].repeat(3_000)));
    });
}

/// Frames that say nothing for the record, and cost their receiver an answer or a look.
#[test]
fn frames_without_evidence() {
    let floods: [(&str, Vec<u8>); 6] = [
        ("empty DATA", frames::data(1, flag::NONE, b"")),
        ("PING", frames::ping(flag::NONE, *b"pingping")),
        ("PING acknowledgements", frames::ping(flag::ACK, *b"pingping")),
        ("WINDOW_UPDATE", frames::window_update(0, 1)),
        ("PRIORITY", frames::frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 3, 7])),
        ("padding", frames::data(1, flag::PADDED, &frames::padded(255, b""))),
    ];
    for (name, frame) in floods {
        let upstream = Upstream::start();
        let bounds = Bounds { ledger_bytes_per_byte: 0.1, ..Bounds::ONE };
        besiege(name, builder(upstream.addr), &bounds, move |attack| {
            flood(attack, &frames::headers(1, flag::NONE, &head()), &frame.repeat(500));
        });
    }
}

#[test]
fn a_settings_flood() {
    let upstream = Upstream::start();
    besiege("SETTINGS flood", builder(upstream.addr), &Bounds::ONE, |attack| {
        flood(attack, b"", &frames::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).repeat(500));
    });
}

/// Clients that ask for a lot and read nothing of it: what the server has sent is held up to the bound of one direction, and the server waits.
#[test]
fn slow_readers() {
    let upstream = Upstream::start();
    let bounds = Bounds {
        attackers: 4,
        memory_kib: 4 * 4 * 1024 + 32 * 1024,
        ledger_bytes_per_byte: 8.0,
        ..Bounds::ONE
    };
    besiege("slow readers", builder(upstream.addr), &bounds, |attack| {
        let Some(socket) = attack.connect_deaf() else { return };
        let opening = [&frames::PREFACE[..], &frames::settings(&[])].concat();
        if !attack.send(&socket, &opening) {
            return;
        }
        let body = frames::data(1, flag::END_STREAM, &[b'r'; 16_000]);
        for number in 0.. {
            let stream = 2 * number + 1;
            let mut body = body.clone();
            body[5..9].copy_from_slice(&u32::to_be_bytes(stream));
            if !attack.send(&socket, &[frames::headers(stream, flag::NONE, &head()), body].concat()) {
                return;
            }
        }
    });
}

/// Clients that give a real server no window, so that everything stays with it.
#[test]
fn zero_windows() {
    let server = EchoServer::start();
    // Ten thousand calls may be open on each connection (limits.streams_max), at about a KiB.
    let bounds = Bounds {
        attackers: 4,
        memory_kib: 64 * 1024,
        ledger_bytes_per_byte: 20.0,
        bytes: 4 << 20,
        ..Bounds::ONE
    };
    besiege("zero windows", builder(server.addr), &bounds, |attack| {
        calls(attack, &head(), |stream| {
            let opening =
                if stream == 3 { frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]) } else { Vec::new() };
            let call =
                [frames::headers(stream, flag::NONE, &head()), frames::data(stream, flag::END_STREAM, b"z")];
            [opening, call.concat()].concat()
        });
    });
}

/// A frame of the largest size, all but its last byte: a whole frame has to be there before it is recorded.
#[test]
fn large_frames_that_do_not_end() {
    const FRAME_BYTES: usize = (1 << 24) - 1;
    let upstream = Upstream::start();
    // What has come of a frame is recorded when its connection ends.
    let bounds = Bounds {
        attackers: 4,
        memory_kib: 4 * 17 * 1024 + 32 * 1024,
        bytes: 4 * FRAME_BYTES as u64 - 4,
        ledger_bytes_per_byte: 1.1,
        ..Bounds::ONE
    };
    besiege("large frames", builder(upstream.addr), &bounds, |attack| {
        let frame = frames::data(1, flag::NONE, &vec![b'l'; FRAME_BYTES]);
        let Some(socket) = attack.connect_http2() else { return };
        attack.send(&socket, &frames::headers(1, flag::NONE, &head()));
        for part in frame[..frame.len() - 1].chunks(64 * 1024) {
            if !attack.send(&socket, part) {
                break;
            }
        }
        attack.hold();
    });
}
