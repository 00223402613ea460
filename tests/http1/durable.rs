//! The ledger first: nothing of a request or a response goes on before its evidence is durable, and a ledger that refuses makes a 503.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::driver::End;
use crate::duet::{addr_of, bind};
use crate::held::Scene;
use crate::socket::{accept, connect, is_silent, pass, receive, to_the_end};
use crate::spoiled_disks::Tmpfs;
use crate::support::sidecar::{self, Sidecar};
use crate::{support, told};

const REQUEST: &[u8] = b"PUT /held HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nques";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer";

#[test]
fn nothing_goes_on_before_its_evidence_is_durable() {
    let mut scene = Scene::start();
    scene.client.write_all(REQUEST).unwrap();
    // Whichever of the two is durable first.
    scene.holds_behind(1, &["speaks HTTP/1", "CLIENT_HEADER", "CLIENT_MESSAGE of 4 bytes"], &scene.server);
    scene.holds(&["opened"], &scene.server);
    receive(&mut scene.server, REQUEST);
    scene.client.write_all(b"tion").unwrap();
    scene.holds(&["CLIENT_MESSAGE of 4 bytes", "CLIENT_HALF_CLOSE"], &scene.server);
    receive(&mut scene.server, b"tion");
    scene.server.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").unwrap();
    scene.holds(&["SERVER_INFORMATIONAL"], &scene.client);
    receive(&mut scene.client, b"HTTP/1.1 103 Early Hints\r\n\r\n");
    scene.server.write_all(RESPONSE).unwrap();
    scene.holds(&["SERVER_HEADER", "SERVER_MESSAGE of 6 bytes", "SERVER_HALF_CLOSE"], &scene.client);
    receive(&mut scene.client, RESPONSE);
}

/// The same with the real ledger: when the server has the request, `attestry calls` lists it.
#[test]
fn the_ledger_has_a_call_when_the_server_sees_it() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let mut client = connect(sidecar.addr);
    client.write_all(REQUEST).unwrap();
    let mut server = accept(&upstream);
    receive(&mut server, REQUEST);
    let lines: Vec<String> = sidecar.calls().iter().map(told::line).collect();
    assert_eq!(lines, ["PUT /held - open"]);
    pass(&mut client, &mut server, b"tion");
    pass(&mut server, &mut client, RESPONSE);
    let lines: Vec<String> = sidecar.calls().iter().map(told::line).collect();
    assert_eq!(lines, ["PUT /held 200 ended"]);
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
}

#[test]
fn a_request_that_cannot_be_committed_is_answered_and_never_sent() {
    let mut scene = Scene::start();
    scene.client.write_all(REQUEST).unwrap();
    scene.holds(&["opened"], &scene.server);
    assert_eq!(
        scene.refuses("the disk is full"),
        ["speaks HTTP/1", "CLIENT_HEADER", "CLIENT_MESSAGE of 4 bytes"]
    );
    // What is answered is recorded where it can be; here it cannot either.
    assert_eq!(scene.refuses("the disk is full"), ["LOCAL_ANSWER"]);
    assert_eq!(scene.refuses("the disk is full"), ["closed"]);
    let (answer, end) = to_the_end(&mut scene.client);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n") && answer.contains("the disk is full"), "{answer}");
    assert!(answer.contains("content-length: 0\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!((end, to_the_end(&mut scene.server)), (End::Fin, (Vec::new(), End::Fin)));
}

/// A server that has answered and is gone, while the answer waits for its commit: it is said to its end all the same.
#[test]
fn a_reset_behind_a_response_does_not_take_it_back() {
    let mut scene = Scene::start();
    scene.client.write_all(REQUEST).unwrap();
    scene.holds(&["opened"], &scene.server);
    scene.holds(&["speaks HTTP/1", "CLIENT_HEADER", "CLIENT_MESSAGE of 4 bytes"], &scene.server);
    receive(&mut scene.server, REQUEST);
    scene.server.write_all(RESPONSE).unwrap();
    scene.server.shutdown(Shutdown::Write).unwrap();
    // In its place stands a socket of no meaning.
    let server = std::mem::replace(&mut scene.server, connect(addr_of(&bind())));
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    scene.holds(&["SERVER_HEADER", "SERVER_MESSAGE of 6 bytes", "SERVER_HALF_CLOSE"], &scene.client);
    assert_eq!(to_the_end(&mut scene.client), (RESPONSE.to_vec(), End::Fin));
}

/// Part of a response is with the client: any answer of attestry's would be taken for the rest of it.
#[test]
fn a_response_that_cannot_be_committed_is_broken_off() {
    let mut scene = Scene::start();
    scene.client.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    scene.holds(&["opened"], &scene.server);
    scene.holds(&["speaks HTTP/1", "CLIENT_HEADER", "CLIENT_HALF_CLOSE"], &scene.server);
    receive(&mut scene.server, b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    scene.server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").unwrap();
    scene.holds(&["SERVER_HEADER", "SERVER_MESSAGE of 4 bytes"], &scene.client);
    receive(&mut scene.client, b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
    scene.server.write_all(b"rest").unwrap();
    scene.refuses("the disk is full");
    assert_eq!(to_the_end(&mut scene.client), (Vec::new(), End::Reset));
}

/// Nothing of the response is with the client yet, so it can be told.
#[test]
fn a_response_of_which_nothing_was_sent_becomes_a_503() {
    let mut scene = Scene::start();
    scene.client.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    scene.holds(&["opened"], &scene.server);
    scene.holds(&["speaks HTTP/1", "CLIENT_HEADER", "CLIENT_HALF_CLOSE"], &scene.server);
    receive(&mut scene.server, b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    scene.server.write_all(RESPONSE).unwrap();
    let refused = scene.refuses("the disk is full");
    assert_eq!(refused, ["SERVER_HEADER", "SERVER_MESSAGE of 6 bytes", "SERVER_HALF_CLOSE"]);
    assert_eq!(scene.refuses("the disk is full"), ["closed"]);
    let (answer, end) = to_the_end(&mut scene.client);
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", answer.escape_ascii());
    assert_eq!(end, End::Fin);
}

#[test]
fn a_full_disk_makes_503_until_there_is_space_again() {
    let disk = match Tmpfs::mount(40 << 20) {
        Ok(disk) => disk,
        Err(why) => return support::skip("a_full_disk_makes_503_until_there_is_space_again", &why),
    };
    let ballast = disk.ballast(12 << 20);
    let addr = echo();
    let mut sidecar = Sidecar::builder(addr)
        .ledger_dir(&disk.path().join("ledger"))
        .set("ledger", "recovery_interval_ms", "50")
        .set("ledger", "segment_bytes", "2097152")
        .start();
    let refused = (0..1_000).map(|_| put(sidecar.addr)).find(|answer| !answer.starts_with("HTTP/1.1 200 "));
    let refused = refused.expect("the disk is never full");
    // Broken off, if a part of the answer had gone on already.
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let told = (0..1_000).map(|_| put(sidecar.addr)).find(|answer| answer.starts_with("HTTP/1.1 503 "));
    assert!(told.expect("the sidecar does not refuse").contains("the ledger cannot commit"));
    std::fs::remove_file(ballast).unwrap();
    let served = (0..1_000).any(|_| {
        thread::yield_now();
        put(sidecar.addr).starts_with("HTTP/1.1 200 ")
    });
    assert!(served, "the sidecar refuses for ever");
    sidecar.stop();
    sidecar::verify(&sidecar.ledger_dir);
}

const BODY_BYTES: usize = 256 * 1024;

/// The head of the answer to an upload; empty where the connection broke before.
fn put(addr: SocketAddr) -> String {
    let mut client = connect(addr);
    let head =
        format!("PUT /fill HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    // A refusal may come while it is written.
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(&vec![b'f'; BODY_BYTES]));
    String::from_utf8_lossy(&to_the_end(&mut client).0).into_owned()
}

/// A server that takes one upload on each connection.
fn echo() -> SocketAddr {
    let listener = bind();
    let addr = addr_of(&listener);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let (mut piece, mut tail) = (vec![0; 64 * 1024], Vec::new());
                let mut left = usize::MAX;
                while left > 0 {
                    let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut piece) else { return };
                    if left == usize::MAX {
                        tail.extend_from_slice(&piece[..count]);
                        let Some(end) = tail.windows(4).position(|four| four == b"\r\n\r\n") else {
                            continue;
                        };
                        left = BODY_BYTES - (tail.len() - end - 4);
                    } else {
                        left -= count;
                    }
                }
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            });
        }
    });
    addr
}

/// The comparison can fail: bytes that are there are seen.
#[test]
fn silence_is_told_from_bytes() {
    let listener = bind();
    let mut client = connect(addr_of(&listener));
    let server = accept(&listener);
    assert!(is_silent(&server));
    client.write_all(b"x").unwrap();
    let mut one = [0];
    server.peek(&mut one).unwrap();
    assert!(!is_silent(&server));
}
