//! Floods of frames that no call explains: the first of a kind are told one by one, of the others the ledger has the number, and of their bytes the digest.

use std::sync::Arc;

use attestry::generated::v1::ConnectionEvent;
use attestry::generated::v1::connection_event::Type;
use sha2::{Digest as _, Sha256};

use crate::frames::{self, code, flag, kind};
use crate::hpack;
use crate::siege::{Aftermath, Attack, Bounds, CALLS, besiege, builder};
use crate::upstream::Upstream;

/// Events of a kind and direction that are told one by one.
const TOLD: u64 = 16;

/// DATA frames, and header blocks, of the genuine client.
const GENUINE: u64 = CALLS as u64 + 2;

/// A flood of one frame, over and over.
struct Flood {
    name: &'static str,
    frame: Vec<u8>,
    kind: u8,
    /// Bytes that must stand behind the digests.
    payload: Vec<u8>,
    event: Type,
}

fn floods() -> Vec<Flood> {
    let flood = |name, frame: Vec<u8>, kind, payload: &[u8]| {
        let event = if kind == kind::GOAWAY { Type::Goaway } else { Type::StrayFrame };
        Flood { name, frame, kind, payload: payload.to_vec(), event }
    };
    vec![
        flood("resets of unknown streams", frames::rst_stream(7, code::CANCEL), kind::RST_STREAM, b""),
        flood("empty DATA on a closed stream", frames::data(7, flag::NONE, b""), kind::DATA, b""),
        flood("DATA on a closed stream", frames::data(7, flag::NONE, b"stray"), kind::DATA, b"stray"),
        flood("frames of an unknown type", frames::frame(0xf1, 3, 0, b"what?"), 0xf1, b"what?"),
        flood("broken PINGs", frames::frame(kind::PING, flag::NONE, 0, b"ping"), kind::PING, b"ping"),
        flood("GOAWAY", frames::goaway(0, code::ENHANCE_YOUR_CALM, b"bye"), kind::GOAWAY, b"bye"),
        flood("GOAWAY without words", frames::goaway(0, code::ENHANCE_YOUR_CALM, b""), kind::GOAWAY, b""),
    ]
}

fn run(flood: &Flood, per_write: usize, bounds: Bounds) -> (Aftermath, Upstream) {
    let upstream = Upstream::start();
    let frame = flood.frame.repeat(per_write);
    let after = besiege(flood.name, builder(upstream.addr), &bounds, move |attack: &Arc<Attack>| {
        let Some(socket) = attack.connect_http2() else { return };
        while attack.send(&socket, &frame) {}
    });
    (after, upstream)
}

/// What the ledger tells of a flood on one connection: as many as the server has, whatever it has.
fn must_be_told(flood: &Flood, events: &[ConnectionEvent], received: u64) {
    let name = flood.name;
    // The genuine client says goodbye as well, without an error.
    let is_floods = |event: &&ConnectionEvent| {
        event.r#type() == flood.event
            && (flood.event != Type::Goaway || event.code == code::ENHANCE_YOUR_CALM)
    };
    let told: Vec<&ConnectionEvent> = events.iter().filter(is_floods).collect();
    let (single, sums): (Vec<_>, Vec<_>) = told.into_iter().partition(|event| event.count == 0);
    assert_eq!(single.len() as u64, TOLD, "{name}: events of one");
    for event in &single {
        let digest = Sha256::digest(&flood.payload);
        let is_right = event.payload_length == flood.payload.len() as u64
            && (flood.payload.is_empty() || event.payload_stored && event.payload_sha256[..] == digest[..]);
        assert!(is_right, "{name}: {event:?}");
    }
    for event in &sums {
        let bytes = flood.payload.repeat(usize::try_from(event.count).unwrap());
        let digest = Sha256::digest(&bytes);
        let is_right = event.payload_length == bytes.len() as u64 && !event.payload_stored;
        let has_digest = if bytes.is_empty() {
            event.payload_sha256.is_empty()
        } else {
            event.payload_sha256[..] == digest[..]
        };
        assert!(is_right && has_digest, "{name}: {event:?}");
    }
    let in_sums: u64 = sums.iter().map(|event| event.count).sum();
    let received = received - if flood.kind == kind::DATA { GENUINE } else { 0 };
    // The genuine client's GOAWAY is among those received.
    let received = received - u64::from(flood.kind == kind::GOAWAY);
    assert!(in_sums + TOLD >= received, "{name}: the server has {received}, the ledger {TOLD} and {in_sums}");
    assert!(sums.len() as u64 <= in_sums / 100 + 1, "{name}: {in_sums} are told in {} events", sums.len());
}

#[test]
fn floods_of_stray_frames_are_summed() {
    for flood in floods() {
        let (after, upstream) =
            run(&flood, 1_000, Bounds { ledger_bytes_per_byte: 0.5, bytes: 16 << 20, ..Bounds::ONE });
        must_be_told(&flood, &after.connection_events(), upstream.received(flood.kind).0);
    }
}

/// A frame at a time: each read of bytes has its evidence before it goes on, one event; and what has no bytes has none until it is summed.
#[test]
fn a_dripping_flood_of_stray_frames() {
    for flood in floods() {
        // An entry for six bytes, as for any six bytes of a call.
        let bounds = Bounds { ledger_bytes_per_byte: 60.0, bytes: 64 * 1024, ..Bounds::ONE };
        let (after, upstream) = run(&flood, 1, bounds);
        let received = upstream.received(flood.kind).0 - if flood.kind == kind::DATA { GENUINE } else { 0 };
        let events = after.connection_events();
        let count =
            events.iter().filter(|event| event.r#type() == flood.event).map(|event| event.count.max(1));
        assert!(count.sum::<u64>() >= received, "{}: fewer in the ledger than {received}", flood.name);
    }
}

/// What needs no commit is relayed as fast as the thread can, and the thread is everybody's: a call gets its turns after some reads of the flood, not after megabytes.
#[test]
fn a_flood_without_waits_leaves_the_thread_to_others() {
    const BYTES_PER_CALL_MAX: u64 = 16 << 20;
    let upstream = Upstream::start();
    let bytes = 40 * BYTES_PER_CALL_MAX;
    let bounds = Bounds { ledger_bytes_per_byte: 0.1, bytes, in_memory: true, ..Bounds::ONE };
    let frame = frames::rst_stream(7, code::CANCEL).repeat(1_000);
    let after = besiege("a flood without waits", builder(upstream.addr), &bounds, move |attack| {
        let Some(socket) = attack.connect_http2() else { return };
        while attack.send(&socket, &frame) {}
    });
    let per_call = after.sent_during_calls / CALLS as u64;
    assert!(per_call <= BYTES_PER_CALL_MAX, "{per_call} bytes of the flood passed for each genuine call");
}

/// A header block that no call explains is told without its secrets, and summed like the others.
#[test]
fn header_blocks_on_closed_streams() {
    let upstream = Upstream::start();
    let block = [hpack::literal("x-stray", "1"), hpack::literal("authorization", "Bearer secret")].concat();
    let bounds = Bounds { ledger_bytes_per_byte: 0.5, bytes: 16 << 20, ..Bounds::ONE };
    let after = besiege("stray header blocks", builder(upstream.addr), &bounds, move |attack| {
        let Some(socket) = attack.connect_http2() else { return };
        // The stream was skipped, so it is closed (RFC 9113 section 5.1.1).
        let open = frames::headers(9, flag::END_STREAM, &hpack::literal(":path", "/attack.A/B"));
        attack.send(&socket, &open);
        let [trailers, promise] = [kind::HEADERS, kind::PUSH_PROMISE].map(|kind| {
            let promised: &[u8] = if kind == kind::PUSH_PROMISE { &[0, 0, 0, 2] } else { b"" };
            frames::frame(kind, flag::END_HEADERS, 3, &[promised, &block].concat())
        });
        while attack.send(&socket, &[trailers.as_slice(), &promise].concat().repeat(250)) {}
    });
    let events: Vec<_> =
        after.connection_events().into_iter().filter(|event| event.r#type() == Type::StrayFrame).collect();
    for kind in [kind::HEADERS, kind::PUSH_PROMISE] {
        let of_kind = events.iter().filter(|event| event.frame_type == u32::from(kind));
        assert_eq!(of_kind.clone().filter(|event| event.count == 0).count() as u64, TOLD, "{events:?}");
        let count: u64 = of_kind.map(|event| event.count.max(1)).sum();
        // Of the HEADERS the attacker's own first call is none, nor are the genuine ones.
        let received = upstream.received(kind).0 - if kind == kind::HEADERS { GENUINE + 1 } else { 0 };
        assert!(count >= received, "type {kind}: {count} in the ledger of {received}");
    }
}
