//! The upstream is not there: each call is told so by name, the log has it, and the next connection tries again.

use crate::h2_peers::{Client, EchoServer, call, message, runtime};
use crate::ledger_reading::{assert_intact, bodies, bodies_of, stops};
use crate::support::sidecar::Sidecar;
use attestry::entry::Body;
use attestry::generated::v1::{self, EventType};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// A port that is taken, and on which nobody listens.
fn deaf_socket() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

fn opened(ledger: &Path) -> Vec<v1::ConnectionOpened> {
    bodies_of(ledger, |body| if let Body::ConnectionOpened(opened) = body { Some(opened) } else { None })
}

/// The notes of all local answers.
fn local_answers(ledger: &Path) -> Vec<String> {
    let calls = bodies_of(ledger, |body| if let Body::CallEvents(call) = body { Some(call) } else { None });
    let events = calls.into_iter().flat_map(|call| call.events);
    events.filter(|event| event.r#type() == EventType::LocalAnswer).map(|event| event.note).collect()
}

fn counter(ledger: &Path, name: &str) -> u64 {
    let stopped = stops(ledger).pop().unwrap();
    stopped.counters.iter().find(|counter| counter.name == name).map(|counter| counter.value).unwrap()
}

#[test]
fn a_refused_upstream_is_named_and_tried_again() {
    let (socket, addr) = deaf_socket();
    let mut sidecar = Sidecar::start(addr);
    let content = message(b"hello");
    let server = runtime().block_on(async {
        let mut client = Client::connect(sidecar.addr).await;
        for number in 0..2 {
            let outcome = client.call(&content).await;
            // After its first answer the client has a GOAWAY, and may use the connection no more.
            let is_over = number > 0 && outcome.unavailable().is_none();
            let message = outcome.unavailable().unwrap_or_default();
            let named = message.contains(&format!("upstream {addr}")) && message.contains("refused");
            assert!(named || is_over, "call {number}: {outcome:?}");
        }
        socket.listen(16).unwrap();
        let server = EchoServer::on(TcpListener::from(socket));
        assert!(call(sidecar.addr, &content).await.is_echo_of(&content), "the next connection tries again");
        server
    });
    sidecar.stop();
    drop(server);
    let opened = opened(&sidecar.ledger_dir);
    assert_eq!(opened.len(), 2);
    assert!(opened[0].upstream_address.is_empty() && opened[0].upstream == addr.to_string());
    assert!(opened[0].local_reason.contains("refused"), "{}", opened[0].local_reason);
    assert!(opened[1].local_reason.is_empty() && opened[1].upstream_address == addr.to_string());
    let answers = local_answers(&sidecar.ledger_dir);
    let refused = counter(&sidecar.ledger_dir, "refused_calls");
    assert!(
        !answers.is_empty() && answers.len() as u64 == refused,
        "{refused} calls, answers in the log: {answers:?}"
    );
    assert!(answers.iter().all(|note| note.contains(&addr.to_string())), "{answers:?}");
    assert_eq!(counter(&sidecar.ledger_dir, "upstream_connect_failures"), 1);
    assert_eq!(counter(&sidecar.ledger_dir, "calls_started"), counter(&sidecar.ledger_dir, "calls_ended"));
    let closed = bodies(&sidecar.ledger_dir)
        .into_iter()
        .filter(|body| matches!(body, Body::ConnectionClosed(_)))
        .count();
    assert_eq!(closed, 2);
    assert_intact(&sidecar.ledger_dir, "an upstream that was not there");
}

/// A listener whose backlog is full answers nobody.
#[test]
fn an_upstream_that_does_not_answer_is_named_with_the_limit() {
    let (socket, addr) = deaf_socket();
    socket.listen(0).unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&addr.into());
            socket
        })
        .collect();
    let mut sidecar = Sidecar::builder(addr).set("proxy", "connect_timeout_ms", "300").start();
    let outcome = runtime().block_on(call(sidecar.addr, &message(b"hello")));
    let message = outcome.unavailable().unwrap_or_else(|| panic!("{outcome:?}"));
    assert!(message.contains(&format!("upstream {addr}")) && message.contains("300 ms"), "{message}");
    drop(waiting);
    sidecar.stop();
    assert!(opened(&sidecar.ledger_dir)[0].local_reason.contains("300 ms"));
    assert_intact(&sidecar.ledger_dir, "an upstream that did not answer");
}
