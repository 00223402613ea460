//! Sockets that are closed with bytes in them that nobody has read: the kernel makes that a reset, and so it must arrive.

use std::io::Write as _;
use std::net::TcpListener;

use crate::driver::End;
use crate::duet::{addr_of, bind};
use crate::socket::{accept, connect, pass, receive, to_the_end};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, end};

/// How the other side sees the end of one that closes with unread bytes in its socket.
fn end_seen(target: std::net::SocketAddr, upstream: &TcpListener, client_closes: bool) -> End {
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
    server.write_all(&[0x42; 100_000]).unwrap();
    client.write_all(b"never read").unwrap();
    server.peek(&mut [0]).unwrap();
    receive(&mut client, &[0x42; 100_000]);
    drop(server);
    assert_eq!(to_the_end(&mut client), (Vec::new(), End::Reset));
    sidecar.stop();
    sidecar.verify();
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
        assert_eq!((end(connection), &connection["bytes_to_server"]), (format!("attestry: {why}"), &0.into()));
    }

    let mut sidecar = refusing(addr_of(&named));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&named));
    pass(&mut server, &mut client, b"220 hello\r\n");
    pass(&mut client, &mut server, b"\x01question");
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
}
