//! SIGTERM with both directions of traffic: what comes to the workload ends first, and what the workload calls itself is served until it is quiet.

use crate::h2_peers::{Client, EchoServer, call, message, runtime};
use crate::ledger_reading::{assert_intact, bodies_of, stops};
use crate::probes::{PATIENCE, admin_of, ask_until, builder};
use crate::support::sidecar::Sidecar;
use attestry::entry::Body;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

fn outbound(upstream: SocketAddr, drain_timeout_ms: &str) -> Sidecar {
    builder(upstream)
        .set("proxy", "traffic", "\"outbound\"")
        .set("proxy", "drain_timeout_ms", drain_timeout_ms)
        .start()
}

#[test]
fn outbound_calls_are_served_while_the_workload_makes_some() {
    let server = EchoServer::start();
    let mut sidecar = outbound(server.addr, "60000");
    let admin = admin_of(&sidecar);
    let (runtime, content) = (runtime(), message(b"last words"));
    let mut client = runtime.block_on(Client::connect(sidecar.addr));
    assert!(runtime.block_on(client.call(&content)).is_echo_of(&content));
    sidecar.signal("TERM");
    ask_until(admin, "/readyz", 503);
    // The connection that is there is not told to go away, and new ones come about.
    for _ in 0..3 {
        assert!(runtime.block_on(client.call(&content)).is_echo_of(&content));
        assert!(runtime.block_on(call(sidecar.addr, &content)).is_echo_of(&content));
    }
    drop(client);
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    assert_eq!(stops(&sidecar.ledger_dir).len(), 1);
    assert_intact(&sidecar.ledger_dir, "outbound to the end");
}

#[test]
fn a_workload_that_does_not_close_is_cut_when_the_time_is_over() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar = outbound(upstream.local_addr().unwrap(), "1000");
    let client = TcpStream::connect(sidecar.addr).unwrap();
    let server = upstream.accept().unwrap();
    sidecar.signal("TERM");
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    drop((client, server));
    let closed =
        bodies_of(&sidecar.ledger_dir, |body| matches!(body, Body::ConnectionClosed(_)).then_some(()));
    assert_eq!(closed.len(), 1);
    assert_intact(&sidecar.ledger_dir, "cut");
}

/// A connection straight to the outbound listener is not redirected, so it is turned away: but it is accepted.
#[test]
fn the_outbound_listener_outlives_the_inbound_one() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar = builder(upstream.local_addr().unwrap())
        .set("proxy", "drain_timeout_ms", "60000")
        .set("outbound", "listen", "\"127.0.0.1:0\"")
        .start();
    let outbound = listening(&sidecar);
    let outbound = *outbound
        .iter()
        .find(|address| **address != sidecar.addr && **address != admin_of(&sidecar))
        .unwrap();
    let client = TcpStream::connect(sidecar.addr).unwrap();
    let server = upstream.accept().unwrap();
    sidecar.signal("TERM");
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(sidecar.addr).is_ok() {
        assert!(Instant::now() < end, "the inbound listener is still open");
    }
    TcpStream::connect(outbound).expect("the workload can still call out");
    // With the listener go the connections that the loop above has made and nobody has accepted.
    drop((client, server, upstream));
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
    assert!(TcpStream::connect(outbound).is_err());
    assert_eq!(stops(&sidecar.ledger_dir)[0].reason, "SIGTERM");
    assert_intact(&sidecar.ledger_dir, "both ended");
}

/// The IPv4 addresses that the process listens on, from its table of sockets: only the first is said on standard output.
fn listening(sidecar: &Sidecar) -> Vec<SocketAddr> {
    const LISTEN: &str = "0A";
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid()))
        .unwrap()
        .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok())
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", sidecar.pid())).unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == LISTEN && inodes.iter().any(|inode| inode == row[9]))
        .map(|row| {
            let port = u16::from_str_radix(row[1].split_once(':').unwrap().1, 16).unwrap();
            SocketAddr::from(([127, 0, 0, 1], port))
        })
        .collect()
}
