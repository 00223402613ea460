//! Sockets that are closed with bytes in them that nobody has read: the kernel makes that a reset, and so it must arrive.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::driver::End;
use crate::duet::{addr_of, bind};
use crate::socket::{accept, connect, pass, receive, to_the_end};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, end};

/// How the other side sees the end of one that closes with unread bytes in its socket.
fn end_seen(target: SocketAddr, upstream: &TcpListener, client_closes: bool) -> End {
    let (mut client, mut server) = (connect(target), accept(upstream));
    pass(&mut client, &mut server, b"\x01question");
    pass(&mut server, &mut client, b"\x02answer");
    let (closes, stays) = if client_closes { (client, &mut server) } else { (server, &mut client) };
    stays.write_all(b"never read").unwrap();
    // It has come, and stays where it is.
    closes.peek(&mut [0]).unwrap();
    drop(closes);
    to_the_end(stays).1
}

#[test]
fn a_close_over_unread_bytes_is_a_reset_on_the_other_side() {
    let upstream = bind();
    for client_closes in [true, false] {
        assert_eq!(end_seen(addr_of(&upstream), &upstream, client_closes), End::Reset, "the case itself");
    }
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    for client_closes in [true, false] {
        let end = end_seen(sidecar.addr, &upstream, client_closes);
        assert_eq!(end, End::Reset, "relayed, client closes: {client_closes}");
    }
    sidecar.stop();
    sidecar.verify();
    let ends: Vec<String> = connections(&sidecar).iter().map(end).collect();
    assert_eq!(ends, ["client: connection reset by the client", "server: connection reset by the server"]);
}

/// What was said before the reset still arrives.
#[test]
fn bytes_before_a_reset_arrive() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut client, &mut server, b"\x01question");
    server.write_all(&vec![0x42; 100_000]).unwrap();
    client.write_all(b"never read").unwrap();
    server.peek(&mut [0]).unwrap();
    receive(&mut client, &vec![0x42; 100_000]);
    drop(server);
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
}

/// A reset that comes while the server is still being written to: whichever of reading and writing meets it first, what came before it arrives and the end is a reset. A body
/// that runs to the connection's end would look whole otherwise.
#[test]
fn a_reset_under_a_running_upload_is_a_reset() {
    const HEAD: &[u8] = b"POST /cut HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhalf of it";
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let openings = [HEAD, b"\x01question"];
    for (target, opening) in [addr_of(&upstream), sidecar.addr]
        .into_iter()
        .flat_map(|target| openings.map(|opening| (target, opening)))
    {
        for round in 0..RACES {
            let (mut client, mut server) = (connect(target), accept(&upstream));
            pass(&mut client, &mut server, opening);
            let mut upload = client.try_clone().unwrap();
            // Until it fails: the server does not read it.
            let uploading = thread::spawn(move || {
                let piece = vec![0x33; 64 * 1024];
                loop {
                    if let Err(error) = upload.write_all(&piece) {
                        return error.kind();
                    }
                }
            });
            server.peek(&mut [0]).unwrap();
            server.write_all(ANSWER).unwrap();
            SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
            drop(server);
            let (answer, end) = to_the_end(&mut client);
            // The kernel tells one of the two of it; behind an end in good order it would be a broken pipe.
            let failed = uploading.join().unwrap();
            let is_reset = end == End::Reset || failed == ErrorKind::ConnectionReset;
            let seen = format!(
                "round {round}, direct {}: \"{}\", {end:?}, {failed}",
                target != sidecar.addr,
                answer.escape_ascii()
            );
            assert!(answer == ANSWER && is_reset, "{seen}");
        }
    }
    sidecar.stop();
    sidecar.verify();
    for connection in connections(&sidecar) {
        assert_eq!(end(&connection), "server: connection reset by the server");
    }
}

/// Enough that the reset is met by either.
const RACES: usize = 30;

/// Bytes that were held because nobody knew yet what they were do not go on behind a reset; that is all that differs.
#[test]
fn a_reset_within_a_beginning_is_a_reset() {
    let upstream = bind();
    let mut sidecar = Sidecar::builder(addr_of(&upstream)).set("detect", "timeout_ms", "60000").start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    client.write_all(b"GE").unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
    let connection = &connections(&sidecar)[0];
    assert_eq!(
        (end(connection), &connection["bytes_to_server"]),
        ("client: connection reset by the client".into(), &0.into())
    );
}

/// `on_unreadable = "refuse"`: nobody who speaks what cannot be read gets through, but to a port that is named.
#[test]
fn what_is_not_readable_is_refused_where_that_is_asked_for() {
    let (upstream, named) = (bind(), bind());
    let port = named.local_addr().unwrap().port();
    let refusing = |upstream| {
        Sidecar::builder(upstream)
            .set("detect", "on_unreadable", "\"refuse\"")
            .set("detect", "timeout_ms", "100")
            .set("proxy", "opaque_ports", &format!("[{port}]"))
            .start()
    };
    let mut sidecar = refusing(addr_of(&upstream));
    let openings: [(&[u8], &[u8]); 4] =
        [(b"\x01question", b""), (b"", b"220 hello\r\n"), (b"GE", b""), (b"PING\r\n", b"")];
    for (of_client, of_server) in openings {
        let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
        client.write_all(of_client).unwrap();
        server.write_all(of_server).unwrap();
        assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
        assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    }
    // HTTP is readable.
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut client, &mut server, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    let connections = connections(&sidecar);
    assert_eq!(connections.len(), openings.len() + 1);
    for connection in &connections[..openings.len()] {
        let why = connection["unread"].as_str().unwrap_or_default();
        assert!(why.starts_with("not readable: "), "{connection}");
        assert_eq!(
            (end(connection), &connection["bytes_to_server"]),
            (format!("attestry: {why}"), &0.into())
        );
    }

    let mut sidecar = refusing(addr_of(&named));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&named));
    pass(&mut server, &mut client, b"220 hello\r\n");
    pass(&mut client, &mut server, b"\x01question");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
}

/// A connection that nobody reads has the whole time of a drain, and a reset at its end: nobody shall take what was cut for whole.
#[test]
fn a_connection_that_outlasts_the_drain_is_reset() {
    let upstream = bind();
    let mut sidecar = Sidecar::builder(addr_of(&upstream)).set("proxy", "drain_timeout_ms", "300").start();
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut client, &mut server, b"\x01question");
    sidecar.signal("TERM");
    pass(&mut server, &mut client, b"\x02answer");
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut server), (Vec::new(), End::Reset));
    assert!(sidecar.wait().success());
    sidecar.verify();
    assert_eq!(end(&connections(&sidecar)[0]), "attestry: drain timeout");
}

/// The client learns that there is no upstream as it would have without attestry: by a connection that breaks.
#[test]
fn an_upstream_that_is_not_there_is_a_reset() {
    // A port that is taken, and on which nobody listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let mut sidecar = Sidecar::start(socket.local_addr().unwrap().as_socket().unwrap());
    let mut client = connect(sidecar.addr);
    client.write_all(b"\x01question").unwrap();
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
    let connection = &connections(&sidecar)[0];
    assert!(connection["local_reason"].as_str().is_some_and(|why| why.contains("refused")), "{connection}");
    assert_eq!((&connection["end_side"], &connection["bytes_to_server"]), (&"attestry".into(), &0.into()));
}
