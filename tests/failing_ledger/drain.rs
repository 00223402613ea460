//! SIGTERM: open calls end in peace, new ones are not taken, and nothing keeps the process beyond its time.

use crate::driver::{End, PATIENCE, Peer};
use crate::frames::{self, PREFACE, code, flag, kind};
use crate::h2_peers::EchoServer;
use crate::hpack;
use crate::ledger_reading::{assert_intact, bodies_of, stops};
use crate::support::sidecar::Sidecar;
use attestry::entry::Body;
use attestry::generated::v1::EventType;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// HEADERS of a gRPC call.
pub fn request(stream: u32, flags: u8) -> Vec<u8> {
    let block = [
        hpack::indexed(hpack::at::POST),
        hpack::indexed(hpack::at::HTTP),
        hpack::literal_at(hpack::at::PATH, "/drain.Test/Call"),
        hpack::literal_at(hpack::at::AUTHORITY, "test"),
        hpack::literal("content-type", "application/grpc"),
        hpack::literal("te", "trailers"),
    ];
    frames::headers(stream, flags, &block.concat())
}

/// A client whose call has got its first message back, and which has seen the server's SETTINGS.
fn with_an_open_call(sidecar: &Sidecar) -> Peer {
    let mut client = Peer::connect("client", sidecar.addr, PATIENCE).unwrap();
    let opening = [
        PREFACE.to_vec(),
        frames::settings(&[]),
        request(1, flag::NONE),
        frames::data(1, flag::NONE, b"\0\0\0\0\x02hi"),
    ];
    client.send(&opening.concat()).unwrap();
    let echo = client.frame_of(kind::DATA).unwrap();
    assert_eq!(echo.payload, b"\0\0\0\0\x02hi");
    client.send(&frames::settings_ack()).unwrap();
    client
}

#[test]
fn an_open_call_finishes_and_nothing_new_is_taken() {
    let server = EchoServer::start();
    let mut sidecar = Sidecar::builder(server.addr).set("proxy", "drain_timeout_ms", "20000").start();
    let mut client = with_an_open_call(&sidecar);
    sidecar.signal("TERM");
    let goaway = client.frame_of(kind::GOAWAY).unwrap();
    assert_eq!(
        goaway.goaway(),
        Some(((1 << 31) - 1, code::NO_ERROR)),
        "a graceful GOAWAY lets everything on"
    );
    assert!(TcpStream::connect(sidecar.addr).is_err(), "new connections are still accepted");
    client.send(&frames::data(1, flag::NONE, b"\0\0\0\0\x05still")).unwrap();
    assert_eq!(client.frame_of(kind::DATA).unwrap().payload, b"\0\0\0\0\x05still");
    client.send(&frames::data(1, flag::END_STREAM, b"")).unwrap();
    let trailers = client.frame_of(kind::HEADERS).unwrap();
    assert!(trailers.has(flag::END_STREAM) && trailers.stream() == 1);
    let last = client.frame_of(kind::GOAWAY).unwrap();
    assert_eq!(last.goaway(), Some((1, code::NO_ERROR)));
    assert_eq!(client.end().unwrap(), End::Fin);
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    let stopped = stops(&sidecar.ledger_dir);
    assert!(stopped.len() == 1 && stopped[0].reason == "SIGTERM", "{stopped:?}");
    assert_eq!(endings(&sidecar), ["drained"]);
    assert_intact(&sidecar.ledger_dir, "drained");
}

#[test]
fn a_call_that_does_not_end_is_cut_when_the_time_is_over() {
    let server = EchoServer::start();
    let mut sidecar = Sidecar::builder(server.addr).set("proxy", "drain_timeout_ms", "300").start();
    let mut client = with_an_open_call(&sidecar);
    sidecar.signal("TERM");
    client.frame_of(kind::GOAWAY).unwrap();
    let last = client.frame_of(kind::GOAWAY).unwrap();
    assert_eq!(last.goaway(), Some((1, code::NO_ERROR)));
    assert_eq!(client.end().unwrap(), End::Fin);
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    assert_eq!(endings(&sidecar), ["drain timeout with 1 calls open"]);
    let abandoned = bodies_of(&sidecar.ledger_dir, |body| match body {
        Body::CallEvents(call) => {
            call.events.into_iter().find(|event| event.r#type() == EventType::Abandoned)
        }
        _ => None,
    });
    assert_eq!(abandoned.len(), 1);
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
    assert_intact(&sidecar.ledger_dir, "cut");
}

/// A client that reads nothing, and a server that never stops: neither keeps the process when the time is over.
#[test]
fn a_peer_that_does_not_read_does_not_outlast_the_drain() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar =
        Sidecar::builder(upstream.local_addr().unwrap()).set("proxy", "drain_timeout_ms", "300").start();
    let mut client = TcpStream::connect(sidecar.addr).unwrap();
    client
        .write_all(&[PREFACE.to_vec(), frames::settings(&[]), request(1, flag::END_STREAM)].concat())
        .unwrap();
    let (mut server, _) = upstream.accept().unwrap();
    let (is_full, filled) = std::sync::mpsc::channel();
    let flood = thread::spawn(move || {
        let mut start = [0; 24];
        server.read_exact(&mut start).unwrap();
        let block =
            [hpack::indexed(hpack::at::STATUS), hpack::literal("content-type", "application/grpc")].concat();
        server.write_all(&[frames::settings(&[]), frames::headers(1, flag::NONE, &block)].concat()).unwrap();
        server.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let frame = frames::data(1, flag::NONE, &[0; 16_000]);
        // The first write that does not get through shows that everything on the way is full.
        while server.write_all(&frame).is_ok() {}
        is_full.send(()).unwrap();
        server
    });
    filled.recv_timeout(PATIENCE).unwrap();
    sidecar.signal("TERM");
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    drop((client, flood.join().unwrap()));
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
    assert_intact(&sidecar.ledger_dir, "cut while nobody read");
}

/// A client that does not read its local answer does not keep the process either.
#[test]
fn an_unread_local_answer_does_not_outlast_the_drain() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut sidecar = Sidecar::builder(nobody).set("proxy", "drain_timeout_ms", "300").start();
    let mut client = TcpStream::connect(sidecar.addr).unwrap();
    client.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    client.write_all(&[PREFACE.to_vec(), frames::settings(&[])].concat()).unwrap();
    // Each PING asks for an answer as long as itself, so at last neither side can write.
    let pings = frames::ping(flag::NONE, *b"ping me!").repeat(10_000);
    while client.write_all(&pings).is_ok() {}
    sidecar.signal("TERM");
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    drop(client);
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
}

/// The reasons of all connections' ends.
fn endings(sidecar: &Sidecar) -> Vec<String> {
    bodies_of(&sidecar.ledger_dir, |body| {
        if let Body::ConnectionClosed(closed) = body { Some(closed.reason) } else { None }
    })
}
