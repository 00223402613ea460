//! Commit before forward: with a commit port that holds its receipts, not one byte of a frame whose events need a commit reaches the other
//! side; when the receipts come, in whatever order, the bytes come out as they went in.
//!
//! The relay is the real one, between two sockets of the test; only the ledger is a double. `barrier/interleavings.rs` does the same with random
//! conversations, here are the cases that everybody should know.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

#[path = "wire/frames.rs"]
mod frames;
#[path = "support/holding_port.rs"]
mod holding_port;
#[path = "wire/hpack.rs"]
mod hpack;
#[path = "barrier/interleavings.rs"]
mod interleavings;
#[path = "support/relay.rs"]
mod relay;
#[path = "barrier/rig.rs"]
mod rig;

use attestry::entry::{CommitError, Receipt};
use frames::{PREFACE, code, flag, kind};
use holding_port::Held;
use rig::{PATIENCE, Rig, Way};
use std::time::Duration;

/// How long nothing must happen, where nothing may. It can only let a fault slip by, never fail a sound relay.
const SILENCE: Duration = Duration::from_millis(40);

fn request(stream: u32) -> Vec<u8> {
    let block = [
        hpack::indexed(hpack::at::POST),
        hpack::indexed(hpack::at::HTTP),
        hpack::literal_at(hpack::at::PATH, "/barrier.Test/Call"),
        hpack::literal("content-type", "application/grpc"),
    ];
    frames::headers(stream, flag::NONE, &block.concat())
}

fn response(stream: u32) -> Vec<u8> {
    let block = [hpack::indexed(hpack::at::STATUS), hpack::literal("content-type", "application/grpc")];
    frames::headers(stream, flag::NONE, &block.concat())
}

fn data(stream: u32, length: usize) -> Vec<u8> {
    frames::data(stream, flag::NONE, &vec![b'd'; length])
}

/// A rig whose connection is committed and whose call 1 has its headers on both sides.
fn with_a_call() -> Rig {
    let mut rig = Rig::start(1 << 20);
    rig.commit_next();
    rig.send(Way::Up, &[PREFACE.to_vec(), frames::settings(&[]), request(1)].concat());
    rig.commit_next();
    rig.arrives(Way::Up);
    rig.send(Way::Down, &[frames::settings(&[]), response(1)].concat());
    rig.commit_next();
    rig.arrives(Way::Down);
    rig
}

#[test]
fn nothing_goes_on_before_the_connection_is_in_the_ledger() {
    let mut rig = Rig::start(1 << 20);
    rig.send(Way::Up, &[PREFACE.to_vec(), frames::settings(&[])].concat());
    rig.send(Way::Down, &frames::settings(&[]));
    assert!(rig.port.wait(PATIENCE, |held| held.len() == 1));
    rig.is_silent(Way::Up, SILENCE);
    rig.is_silent(Way::Down, SILENCE);
    rig.commit_next();
    rig.arrives(Way::Up);
    rig.arrives(Way::Down);
    rig.end();
}

#[test]
fn a_frame_waits_for_its_receipt_and_what_follows_waits_for_it() {
    for way in [Way::Up, Way::Down] {
        let mut rig = with_a_call();
        // Control frames alone need no entry, and go on at once.
        rig.send(way, &frames::ping(flag::NONE, *b"before!!"));
        rig.arrives(way);
        let number = rig.port.held().len();
        let held = [data(1, 100), frames::window_update(0, 7)].concat();
        rig.send(way, &held);
        assert!(rig.port.wait(PATIENCE, |held| held.len() == number + 1), "{way:?}");
        // They do not overtake, though.
        rig.send(way, &frames::ping(flag::NONE, *b"after!!!"));
        rig.send(way, &frames::settings(&[(0x77, 1)]));
        // The relay is at work all the time: the other direction shows it.
        for _ in 0..3 {
            rig.send(way.back(), &frames::ping(flag::ACK, *b"before!!"));
            rig.arrives(way.back());
        }
        rig.is_silent(way, SILENCE);
        rig.port.commit(number);
        rig.arrives(way);
        rig.end();
    }
}

#[test]
fn every_kind_of_frame_that_is_evidence_waits() {
    let frames_of = |way: Way| {
        let trailers = frames::headers(1, flag::END_STREAM, &hpack::literal("grpc-status", "0"));
        let mut frames = vec![
            ("DATA", data(1, 10)),
            ("END_STREAM alone", frames::data(1, flag::END_STREAM, b"")),
            ("trailers", trailers),
            ("RST_STREAM", frames::rst_stream(1, code::CANCEL)),
            ("GOAWAY", frames::goaway(1, code::NO_ERROR, b"bye")),
            ("an unknown type", frames::frame(0xbb, 0, 0, b"?")),
            ("a broken PING", frames::frame(kind::PING, 0, 0, b"short")),
            ("DATA on an idle stream", data(77, 1)),
        ];
        if way == Way::Up {
            frames.push(("HEADERS", request(3)));
        } else {
            let promise = [3_u32.to_be_bytes().to_vec(), hpack::indexed(hpack::at::GET)].concat();
            frames.push(("PUSH_PROMISE", frames::frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise)));
        }
        frames
    };
    for way in [Way::Up, Way::Down] {
        for (name, frame) in frames_of(way) {
            let mut rig = with_a_call();
            let number = rig.port.held().len();
            rig.send(way, &frame);
            assert!(
                rig.port.wait(PATIENCE, |held| held.len() == number + 1),
                "{name} {way:?} is not recorded"
            );
            rig.send(way.back(), &frames::ping(flag::ACK, *b"marker!!"));
            rig.arrives(way.back());
            rig.is_silent(way, Duration::ZERO);
            rig.port.commit(number);
            rig.arrives(way);
            rig.end();
        }
    }
}

#[test]
fn receipts_out_of_order_release_in_order() {
    for way in [Way::Up, Way::Down] {
        let mut rig = with_a_call();
        let first = rig.port.held().len();
        for number in 0..3 {
            rig.send(way, &data(1, 100 + number));
            assert!(rig.port.wait(PATIENCE, |held| held.len() == first + number + 1), "{way:?}");
        }
        rig.port.commit(first + 2);
        rig.port.commit(first + 1);
        rig.send(way.back(), &frames::ping(flag::ACK, *b"marker!!"));
        rig.arrives(way.back());
        rig.is_silent(way, SILENCE);
        rig.port.commit(first);
        rig.arrives(way);
        rig.end();
    }
}

/// Where the receipts do not come, the relay stops reading: what it holds is bounded.
#[test]
fn what_is_held_is_bounded() {
    const HOLD_BYTES_MAX: usize = 128 * 1024;
    // One read more than the bound, and the socket's own.
    const BOUND: u64 = HOLD_BYTES_MAX as u64 + 256 * 1024;
    for way in [Way::Up, Way::Down] {
        let mut rig = Rig::start(HOLD_BYTES_MAX);
        rig.commit_next();
        rig.send(Way::Up, &[PREFACE.to_vec(), frames::settings(&[]), request(1)].concat());
        rig.commit_next();
        rig.arrives(Way::Up);
        let first = rig.port.held().len();
        let opening =
            if way == Way::Down { [frames::settings(&[]), response(1)].concat() } else { Vec::new() };
        let flood = [opening, data(1, 16_000).repeat(1_000)].concat();
        rig.send(way, &flood);
        let sum = |held: &[Held]| held[first..].iter().map(|held| held.wire_bytes).sum::<u64>();
        assert!(rig.port.wait(PATIENCE, |held| sum(held) >= HOLD_BYTES_MAX as u64), "{way:?}");
        rig.is_silent(way, SILENCE);
        let held = sum(&rig.port.held());
        assert!(held <= BOUND, "{way:?}: {held} bytes are held");
        rig.commit_all();
        rig.arrives(way);
        rig.end();
    }
}

/// The one way past the barrier: a ledger that says that the bytes may go on unrecorded.
#[test]
fn an_unrecorded_receipt_releases_too() {
    for way in [Way::Up, Way::Down] {
        let mut rig = with_a_call();
        let number = rig.port.held().len();
        rig.send(way, &data(1, 100));
        assert!(rig.port.wait(PATIENCE, |held| held.len() == number + 1));
        rig.port.answer(number, Ok(Receipt::Unrecorded), |_| {});
        rig.arrives(way);
        rig.end();
    }
}

/// A refusal of what the client sends, and of what the server sends: nothing of it goes on, the call is ended here, and the client is told to go.
#[test]
fn a_refusal_ends_calls_and_forwards_nothing() {
    for way in [Way::Up, Way::Down] {
        let mut rig = with_a_call();
        rig.send(Way::Up, &request(3));
        rig.commit_next();
        rig.arrives(Way::Up);
        let number = rig.port.held().len();
        let (up, down) = (rig.received(Way::Up).len(), rig.received(Way::Down).len());
        rig.send_only(way, &data(1, 100));
        assert!(rig.port.wait(PATIENCE, |held| held.len() == number + 1));
        rig.port.answer(number, Err(CommitError::Refusing("disk full".into())), |_| {});
        rig.refuse_the_rest("disk full");
        let received = rig.wait_for(Way::Down, |bytes| {
            let frames = rig::frames_of(&bytes[down..]);
            frames.iter().any(|frame| frame.kind() == kind::GOAWAY)
        });
        let frames = rig::frames_of(&received[down..]);
        let resets: Vec<_> = frames
            .iter()
            .filter(|frame| frame.kind() == kind::RST_STREAM)
            .map(|frame| (frame.stream(), u32::from_be_bytes(frame.payload[..4].try_into().unwrap())))
            .collect();
        // Call 1 has its response headers, so it is reset; call 3 has nothing yet, so it is answered, and its request is not wanted any more.
        assert_eq!(resets, [(1, code::INTERNAL_ERROR), (3, code::NO_ERROR)], "{way:?}: {frames:?}");
        let answer = frames.iter().find(|frame| frame.kind() == kind::HEADERS).unwrap();
        assert!(answer.stream() == 3 && answer.has(flag::END_STREAM), "{way:?}: {answer:?}");
        let fields = hpack::Decoder::new().decode(answer.fragment().unwrap()).unwrap();
        let value =
            |name: &str| fields.iter().find(|field| field.0 == name.as_bytes()).map(|field| field.1.clone());
        assert_eq!(value("grpc-status"), Some(b"14".to_vec()));
        let message = String::from_utf8(value("grpc-message").unwrap()).unwrap();
        assert!(message.contains("ledger") && message.contains("disk full"), "{message}");
        assert_eq!(rig.wait_for_end(Way::Up).len(), up, "{way:?}: something went upstream after the refusal");
        rig.end();
    }
}
