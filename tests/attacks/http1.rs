//! Attacks by HTTP/1: heads and lines without end, chunks of one byte, and requests that wait for nothing.

use std::sync::Arc;

use attestry::generated::v1::connection_event::Type;

use crate::siege::{Aftermath, Attack, Bounds, besiege, builder};
use crate::upstream::Upstream;

/// `opening`, then `rest` for ever.
fn flood(name: &'static str, bounds: Bounds, opening: &'static [u8], rest: &'static [u8]) -> Aftermath {
    let upstream = Upstream::start();
    let rest = rest.repeat((16_000 / rest.len()).max(1));
    besiege(name, builder(upstream.addr), &bounds, move |attack: &Arc<Attack>| {
        let Some(socket) = attack.connect() else { return };
        if attack.send(&socket, opening) {
            while attack.send(&socket, &rest) {}
        }
    })
}

fn must_be_unreadable(after: &Aftermath, why: &str) {
    let events = after.connection_events();
    let found = events.iter().filter(|event| event.r#type() == Type::NotReadable).map(|event| &event.reason);
    let found: Vec<_> = found.collect();
    assert!(!found.is_empty() && found.iter().all(|reason| reason.contains(why)), "not {why:?}: {found:?}");
}

#[test]
fn a_head_without_end() {
    let bounds = Bounds { bytes: 64 << 20, ..Bounds::ONE };
    // Few long fields, so that it is their bytes that break a bound, and many short ones.
    let long = concat!("x-long: ", "llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll");
    let after = flood("a head of one endless field", bounds, b"GET /attack HTTP/1.1\r\nx: ", long.as_bytes());
    must_be_unreadable(&after, "over 1048576 bytes");
    let after = flood("a head of endless fields", bounds, b"GET /attack HTTP/1.1\r\n", b"x: y\r\n");
    must_be_unreadable(&after, "head");
}

#[test]
fn a_line_without_end() {
    let bounds = Bounds { bytes: 64 << 20, ..Bounds::ONE };
    let after = flood("an endless request line", bounds, b"GET /", b"a");
    let events = after.connection_events();
    assert!(events.iter().any(|event| event.reason.contains("detect.bytes_max")), "{events:?}");
}

#[test]
fn chunks_of_one_byte() {
    // The lines between the chunks say nothing for the record.
    let bounds = Bounds { bytes: 16 << 20, ..Bounds::ONE };
    let opening = b"POST /attack HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    flood("chunks of one byte", bounds, opening, b"1\r\nc\r\n");
}

#[test]
fn a_chunk_size_without_end() {
    let bounds = Bounds { bytes: 16 << 20, ..Bounds::ONE };
    let opening = b"POST /attack HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;";
    must_be_unreadable(&flood("an endless chunk size", bounds, opening, b"e"), "chunked body");
}

#[test]
fn requests_without_a_wait() {
    let bounds = Bounds { bytes: 2 << 20, ledger_bytes_per_byte: 24.0, memory_kib: 48 * 1024, ..Bounds::ONE };
    flood("pipelined requests", bounds, b"", b"GET /attack HTTP/1.1\r\n\r\n");
}

/// Requests whose answers nobody reads: they wait with the server, and with it the client.
#[test]
fn requests_of_the_deaf() {
    let upstream = Upstream::start();
    let bounds = Bounds {
        attackers: 4,
        bytes: 8 << 20,
        ledger_bytes_per_byte: 24.0,
        memory_kib: 64 * 1024,
        ..Bounds::ONE
    };
    besiege("deaf requests", builder(upstream.addr), &bounds, |attack| {
        let Some(socket) = attack.connect_deaf() else { return };
        while attack.send(&socket, &b"GET /attack HTTP/1.1\r\n\r\n".repeat(500)) {}
    });
}

/// Each side waits with half a head: neither can be read until more comes, however often it is looked at.
#[test]
fn half_heads_on_both_sides() {
    let upstream = Upstream::start();
    let bounds = Bounds { attackers: 2, ledger_bytes_per_byte: 60.0, ..Bounds::ONE };
    besiege("half heads", builder(upstream.addr), &bounds, |attack| {
        let connections: Vec<_> = (0..20).map_while(|_| attack.connect()).collect();
        let half = b"GET /half HTTP/1.1\r\nhost: a\r\n\r\nGET /other";
        if connections.iter().all(|socket| attack.send(socket, half)) {
            attack.hold();
        }
    });
}

/// A head by one byte at a time, as slowly as a genuine call takes, on many connections.
#[test]
fn slow_heads() {
    let upstream = Upstream::start();
    let bounds = Bounds { attackers: 4, ledger_bytes_per_byte: 60.0, ..Bounds::ONE };
    besiege("slow heads", builder(upstream.addr), &bounds, |attack| {
        let connections: Vec<_> = (0..50).map_while(|_| attack.connect()).collect();
        for byte in b"GET /attack HTTP/1.1\r\nx-slow: ".iter().chain([b's'; 4_000].iter()) {
            for socket in &connections {
                if !attack.send(socket, &[*byte]) {
                    return;
                }
            }
            attack.is_under_way();
        }
        attack.hold();
    });
}
