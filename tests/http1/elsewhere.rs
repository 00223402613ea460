//! What only attestry can do to a connection: refuse what it cannot read, answer where the upstream is not there, carry bodies of any length in a bounded memory, and keep
//! connections apart.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::driver::End;
use crate::duet::{addr_of, bind};
use crate::socket::{accept, connect, drink, growth_kib, is_silent, pass, pour, to_the_end};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, end, found, hex, line, show};

/// What the first request begins, and the second breaks: the part of it that cannot be read never goes on.
#[test]
fn what_cannot_be_read_is_refused_where_that_is_asked_for() {
    let good = b"GET /good HTTP/1.1\r\nhost: a\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let bad: [&[u8]; 4] = [
        b"POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /bad HTTP/1.1\r\nhost : a\r\n\r\n",
        b"POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"\x16\x03\x01\0\x05hello",
    ];
    let upstream = bind();
    let mut sidecar =
        Sidecar::builder(addr_of(&upstream)).set("detect", "on_unreadable", "\"refuse\"").start();
    for bad in bad {
        let mut client = connect(sidecar.addr);
        let mut server = accept(&upstream);
        pass(&mut client, &mut server, good);
        pass(&mut server, &mut client, ok);
        client.write_all(bad).unwrap();
        let (received, end) = to_the_end(&mut server);
        assert_eq!(
            received,
            b"",
            "\"{}\" is what the server sees of \"{}\"",
            received.escape_ascii(),
            bad.escape_ascii()
        );
        assert!(matches!(end, End::Fin | End::Reset));
        assert_eq!(to_the_end(&mut client).0, b"");
    }
    sidecar.stop();
    sidecar.verify();
    let calls: Vec<String> = sidecar.calls().iter().map(line).collect();
    assert_eq!(calls, vec!["GET /good 200 ended"; bad.len()]);
    let connections = connections(&sidecar);
    assert_eq!(connections.len(), bad.len());
    for connection in &connections {
        assert_eq!(found(connection), ["http1: a request line"]);
        assert!(
            connection["unread"].as_str().is_some_and(|why| why.contains("from the client: ")),
            "{connection}"
        );
        assert_eq!(connection["bytes_to_server"], good.len());
    }
}

/// Within a body that has gone on in part, an end in good order would be taken for the client's: it is a reset.
#[test]
fn what_cannot_be_read_within_a_body_is_refused_by_a_reset() {
    let upstream = bind();
    let mut sidecar =
        Sidecar::builder(addr_of(&upstream)).set("detect", "on_unreadable", "\"refuse\"").start();
    let mut client = connect(sidecar.addr);
    let mut server = accept(&upstream);
    pass(
        &mut client,
        &mut server,
        b"POST /bad HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    client.write_all(b"not a number\r\n").unwrap();
    assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
    assert_eq!(
        sidecar.calls().iter().map(line).collect::<Vec<_>>(),
        ["POST /bad - abandoned (from the client: the chunked body is broken; its sender is)"]
    );
}

/// What the peers have agreed on is no secret kept from attestry: a tunnel passes, whatever is said in it.
#[test]
fn what_follows_an_upgrade_is_not_refused() {
    let upstream = bind();
    let mut sidecar =
        Sidecar::builder(addr_of(&upstream)).set("detect", "on_unreadable", "\"refuse\"").start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(
        &mut client,
        &mut server,
        b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    pass(
        &mut server,
        &mut client,
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    pass(&mut client, &mut server, b"\x81\x80\0\0\0\0");
    pass(&mut server, &mut client, b"\x81\0");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    assert_eq!(found(&connections(&sidecar)[0])[1], "opaque: upgraded to websocket by request 1");
}

/// SIGTERM: what is open is finished, and then the connection ends; one that is idle ends by itself.
#[test]
fn a_drain_lets_a_response_finish_and_ends_idle_connections() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let (mut idle, mut idle_server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut idle, &mut idle_server, b"GET /done HTTP/1.1\r\nhost: a\r\n\r\n");
    pass(&mut idle_server, &mut idle, b"HTTP/1.1 204 No Content\r\n\r\n");
    let (mut busy, mut busy_server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut busy, &mut busy_server, b"GET /open HTTP/1.1\r\nhost: a\r\n\r\n");
    pass(&mut busy_server, &mut busy, b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
    sidecar.signal("TERM");
    assert_eq!(to_the_end(&mut idle), (Vec::new(), End::Fin));
    assert_eq!(to_the_end(&mut idle_server), (Vec::new(), End::Fin));
    assert!(is_silent(&busy) && is_silent(&busy_server));
    pass(&mut busy_server, &mut busy, b"rest");
    assert_eq!(to_the_end(&mut busy), (Vec::new(), End::Fin));
    assert_eq!(to_the_end(&mut busy_server), (Vec::new(), End::Fin));
    assert!(sidecar.wait().success());
    sidecar.verify();
    let mut lines: Vec<String> = sidecar.calls().iter().map(line).collect();
    lines.sort();
    assert_eq!(lines, ["GET /done 204 ended", "GET /open 200 ended"]);
    let ends: Vec<String> = connections(&sidecar).iter().map(end).collect();
    assert_eq!(ends, ["attestry: drained", "attestry: drained"]);
}

/// Its client must not take what it has for all of it.
#[test]
fn a_response_that_outlasts_the_drain_is_reset() {
    let upstream = bind();
    let mut sidecar = Sidecar::builder(addr_of(&upstream)).set("proxy", "drain_timeout_ms", "200").start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut client, &mut server, b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n");
    pass(&mut server, &mut client, b"HTTP/1.1 200 OK\r\n\r\nhalf");
    sidecar.signal("TERM");
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    assert!(sidecar.wait().success());
    sidecar.verify();
    assert_eq!(
        sidecar.calls().iter().map(line).collect::<Vec<_>>(),
        ["GET /long - abandoned (drain timeout with 1 calls open)"]
    );
}

/// Nobody knows whether a tunnel is idle: it has the whole time of the drain.
#[test]
fn a_drain_leaves_tunnels_their_time() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(
        &mut client,
        &mut server,
        b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    pass(
        &mut server,
        &mut client,
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    // One that is idle shows when the drain has come to its end.
    let (mut idle, mut idle_server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut idle, &mut idle_server, b"GET /done HTTP/1.1\r\nhost: a\r\n\r\n");
    pass(&mut idle_server, &mut idle, b"HTTP/1.1 204 No Content\r\n\r\n");
    sidecar.signal("TERM");
    assert_eq!(to_the_end(&mut idle), (Vec::new(), End::Fin));
    pass(&mut server, &mut client, b"\x81\x05Hello");
    pass(&mut client, &mut server, b"\x88\x80\0\0\0\0");
    drop((client, server));
    assert!(sidecar.wait().success());
    sidecar.verify();
}

/// Requests without an answer are counted, and past the bound the connection ends.
#[test]
fn pipelined_requests_are_bounded() {
    let upstream = bind();
    let mut sidecar = Sidecar::builder(addr_of(&upstream)).set("limits", "streams_max", "3").start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    pass(&mut client, &mut server, &request.repeat(3));
    client.write_all(request).unwrap();
    assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
    assert_eq!(sidecar.calls().len(), 3);
    let end = end(&connections(&sidecar)[0]);
    assert_eq!(end, "client: more than 3 requests open on one connection (limits.streams_max)");
}

#[test]
fn an_upstream_that_is_not_there_is_named_in_a_503() {
    // A port that is taken, and on which nobody listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut sidecar = Sidecar::start(addr);
    let mut client = connect(sidecar.addr);
    client.write_all(b"POST /away HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").unwrap();
    let (answer, end) = to_the_end(&mut client);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(&addr.to_string()), "{answer}");
    assert_eq!(end, End::Fin);
    // The next connection tries again.
    socket.listen(16).unwrap();
    let mut client = connect(sidecar.addr);
    let mut server = accept(&socket.into());
    pass(&mut client, &mut server, b"GET /back HTTP/1.1\r\nhost: a\r\n\r\n");
    pass(&mut server, &mut client, b"HTTP/1.1 204 No Content\r\n\r\n");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    let calls = sidecar.calls();
    let lines: Vec<String> = calls.iter().map(line).collect();
    assert!(
        lines[0].starts_with("POST /away - answered_locally (") && lines[0].contains("refused"),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["GET /back 204 ended"]);
    let connections = connections(&sidecar);
    assert!(connections[0]["local_reason"].as_str().is_some_and(|why| why.contains("refused")));
    assert_eq!(
        (&connections[0]["bytes_to_server"], &connections[1]["local_reason"]),
        (&0.into(), &Value::Null)
    );
}

/// linkerd keeps one upstream connection for each host; here each connection of the client is one of the server's, whatever hosts it names.
#[test]
fn connections_are_one_to_one() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut pairs: Vec<_> = (0..3).map(|_| (connect(sidecar.addr), accept(&upstream))).collect();
    for host in ["a", "b", "a"] {
        for (number, (client, server)) in pairs.iter_mut().enumerate() {
            pass(client, server, format!("GET /{number} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
            pass(server, client, ok);
        }
    }
    // What one sends nobody else receives, though all name the same host.
    let (client, server) = &mut pairs[0];
    pass(client, server, b"GET /last HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(is_silent(&pairs[1].1) && is_silent(&pairs[2].1));
    drop(pairs);
    sidecar.stop();
    sidecar.verify();
    let calls: Vec<u64> = connections(&sidecar).iter().map(|one| one["calls"].as_u64().unwrap()).collect();
    assert_eq!(calls.iter().sum::<u64>(), 10);
    assert_eq!(calls.len(), 3);
}

const LARGE_BYTES: u64 = 32 << 20;
const GROWTH_KIB_MAX: u64 = 24 * 1024;

/// An upload with a length and a download in chunks, both at once: whole, in a bounded memory, and in the ledger with their digests.
#[test]
fn large_bodies_pass_both_ways_at_once_in_a_bounded_memory() {
    let upstream = bind();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut sidecar = Sidecar::builder(addr_of(&upstream))
        .ledger_dir(&folder.path().join("ledger"))
        .set("ledger", "segment_bytes", "67108864")
        .start();
    let mut client = connect(sidecar.addr);
    let mut server = accept(&upstream);
    let head = format!("PUT /large HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE_BYTES}\r\n\r\n");
    pass(&mut client, &mut server, head.as_bytes());
    let response = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{LARGE_BYTES:x}\r\n");
    pass(&mut server, &mut client, response.as_bytes());
    let (growth, [asked, answered]) = growth_kib(&sidecar, || both_ways(&client, &server));
    eprintln!("resident memory grew by {growth} KiB");
    assert!(growth <= GROWTH_KIB_MAX, "resident memory grew by {growth} KiB");
    pass(&mut server, &mut client, b"\r\n0\r\n\r\n");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    let calls = sidecar.calls();
    assert_eq!(calls.iter().map(line).collect::<Vec<_>>(), ["PUT /large 200 ended"]);
    assert_eq!(
        (&calls[0]["request_bytes"], &calls[0]["response_bytes"]),
        (&LARGE_BYTES.into(), &LARGE_BYTES.into())
    );
    let shown = show(&sidecar, calls[0]["call_id"].as_str().unwrap());
    let last = |direction: &str| {
        let mut events = shown["events"].as_array().unwrap().iter();
        events.rfind(|event| event["direction"] == direction && event["end"] == true).unwrap()["sha256"]
            .clone()
    };
    assert_eq!(
        (last("client_to_server"), last("server_to_client")),
        (hex(&asked).into(), hex(&answered).into())
    );
}

/// Both bodies at once; returns the digests of what was sent, after finding them to be those of what has come.
fn both_ways(client: &TcpStream, server: &TcpStream) -> [[u8; 32]; 2] {
    let own = |stream: &TcpStream| stream.try_clone().unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| pour(&mut own(client), LARGE_BYTES, 1));
        let answered = scope.spawn(|| pour(&mut own(server), LARGE_BYTES, 2));
        let heard = scope.spawn(|| drink(&mut own(server), LARGE_BYTES));
        let read = drink(&mut own(client), LARGE_BYTES);
        let sent = [asked.join().unwrap(), answered.join().unwrap()];
        assert_eq!(sent, [heard.join().unwrap(), read]);
        sent
    })
}
