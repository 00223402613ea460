//! Connections of which one side has ended: they go on as long as the other side speaks, and no longer than it may be silent.

use crate::ledger_reading::{assert_intact, bodies_of, stops};
use crate::probes::{PATIENCE, builder};
use crate::support::sidecar::Sidecar;
use attestry::entry::Body;
use attestry::generated::v1;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A sidecar with a relayed connection that has carried a byte each way: what the client has, what the server has.
fn connected(half_close_timeout_ms: &str) -> (Sidecar, TcpStream, TcpStream) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = builder(upstream.local_addr().unwrap())
        .set("tcp", "half_close_timeout_ms", half_close_timeout_ms)
        .start();
    let mut client = TcpStream::connect(sidecar.addr).unwrap();
    let (mut server, _) = upstream.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // A server that speaks first speaks no protocol that is read.
    pass(&mut server, &mut client, b"220 ready\r\n");
    pass(&mut client, &mut server, b"HELO\r\n");
    (sidecar, client, server)
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut received = vec![0; bytes.len()];
    to.read_exact(&mut received).unwrap();
    assert_eq!(received, bytes);
}

fn ended(stream: &mut TcpStream) -> Option<ErrorKind> {
    match stream.read(&mut [0; 16]) {
        Ok(0) => None,
        Ok(length) => panic!("{length} bytes more"),
        Err(error) => Some(error.kind()),
    }
}

fn end_of(sidecar: &mut Sidecar) -> (v1::ConnectionClosed, u64) {
    sidecar.stop();
    let mut closed = bodies_of(&sidecar.ledger_dir, |body| {
        if let Body::ConnectionClosed(closed) = body { Some(closed) } else { None }
    });
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert_intact(&sidecar.ledger_dir, "half-closed");
    let stopped = stops(&sidecar.ledger_dir).pop().unwrap();
    let reaped = stopped.counters.iter().find(|counter| counter.name == "half_closed_reaped").unwrap().value;
    (closed.pop().unwrap(), reaped)
}

#[test]
fn a_half_closed_connection_carries_the_other_direction_on() {
    let (mut sidecar, mut client, mut server) = connected("60000");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ended(&mut server), None);
    pass(&mut server, &mut client, b"after your end");
    drop(server);
    assert_eq!(ended(&mut client), None);
    let (closed, reaped) = end_of(&mut sidecar);
    assert_eq!((closed.reason.as_str(), reaped), ("closed by the client", 0));
}

#[test]
fn a_half_that_is_silent_for_too_long_is_ended() {
    for server_ends in [false, true] {
        let (mut sidecar, mut client, mut server) = connected("300");
        let (ends, stays) = if server_ends { (&mut server, &mut client) } else { (&mut client, &mut server) };
        ends.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ended(stays), None);
        assert_eq!(ended(ends), Some(ErrorKind::ConnectionReset), "server ends: {server_ends}");
        let (closed, reaped) = end_of(&mut sidecar);
        assert!(
            closed.reason.contains("half-closed and silent (tcp.half_close_timeout_ms)"),
            "{}",
            closed.reason
        );
        assert_eq!(reaped, 1);
    }
}

/// A peer that ends, and is then gone with a reset, while the other side does not say a word that could find it out.
#[test]
fn a_reset_behind_an_end_is_passed_on_without_a_write() {
    for server_ends in [false, true] {
        let (mut sidecar, mut client, mut server) = connected("3600000");
        let (ends, stays) = if server_ends { (&server, &mut client) } else { (&client, &mut server) };
        ends.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ended(stays), None);
        socket2::SockRef::from(ends).set_linger(Some(Duration::ZERO)).unwrap();
        if server_ends {
            drop(server);
            assert!(is_reset(broken(&client)));
        } else {
            drop(client);
            assert!(is_reset(broken(&server)));
        }
        let (closed, _) = end_of(&mut sidecar);
        assert!(closed.reason.contains("reset behind its end"), "{}", closed.reason);
    }
}

/// The socket's own error, once it has one: nothing is written, and nothing can be read behind the end.
fn broken(stream: &TcpStream) -> ErrorKind {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(error) = stream.take_error().unwrap() {
            return error.kind();
        }
        assert!(Instant::now() < end, "no reset has come");
    }
}

/// Linux says EPIPE for a reset that comes behind the peer's end.
fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
